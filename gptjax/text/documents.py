"""The documents of a corpus: files, folders and globs, read one piece at a time.

Each text file is a document, whatever its size, and so is each line of a .jsonl file. Files may be
compressed (.gz, .zst). Neither the compression nor the order in which a folder lists its files
changes the text.
"""

import codecs
import contextlib
import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from gptjax.errors import InputError
from gptjax.files import is_foreign
from gptjax.text.bpe import AHEAD, PIECE, piece_end
from gptjax.text.byte_level import utf8
from gptjax.text.kinds import Source, advice, encoding_of
from gptjax.text.packages import optional

CHUNK = 2**20
# The number of bytes that are read to find out whether a file is text.
HEAD = 2**13
# The longest line of a .jsonl file, because a whole line must fit into memory.
MAX_LINE = 2**28
COMPRESSED = (".gz", ".zst")
LINES = (".jsonl", ".ndjson")


class Piece(NamedTuple):
    """A part of a document, and whether it is the document's last one."""

    text: str
    is_last: bool


class Documents:
    """The documents of some files, in order.

    Attributes:
        files: paths of all files.
        bytes: the size of all files on disk.
        read: the number of these bytes that have been read, for a progress display.
    """

    def __init__(self, files: Sequence[Path], field: str = "text") -> None:
        self.files, self._field = list(files), field
        self.bytes = sum(path.stat().st_size for path in files)
        self.read = 0

    def pieces(self) -> Iterator[Piece]:
        """Yields every document's text, in pieces that can be encoded alone. Skips empty documents.

        Raises:
            InputError: a file is not UTF-8 text or is truncated, or a line of a .jsonl file is not
                valid; the message names the file, and the byte or the line.
        """
        before = 0
        for path in self.files:
            with _open(path) as (file, raw):
                try:
                    for piece in self._of_file(path, file):
                        self.read = before + raw.tell()
                        yield piece
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise InputError(f"{path} is truncated or damaged: {error}") from error
            before += path.stat().st_size
        self.read = self.bytes

    def _of_file(self, path: Path, file: IO[bytes]) -> Iterator[Piece]:
        if _inner_suffix(path) not in LINES:
            yield from _whole(_decoded(path, file))
            return
        for text in self._lines(path, file):
            yield from _whole([text])

    def _lines(self, path: Path, file: IO[bytes]) -> Iterator[str]:
        """Yields the text in each line of a .jsonl file."""
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            where = f"{path}, line {number}"
            if len(line) == MAX_LINE:
                raise InputError(f"{where} is longer than {MAX_LINE} bytes")
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            try:
                value: Any = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} is not JSON: {error}") from error
            text = value.get(self._field) if isinstance(value, dict) else None
            if not isinstance(text, str):
                there = ", ".join(map(repr, value)) if isinstance(value, dict) else "no object"
                raise InputError(
                    f"{where} has no text in {self._field!r} ({there:.200}): give --field NAME"
                )
            try:
                utf8(text)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            yield text


def find(paths: Sequence[str], tell: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Finds the text files that paths, folders and globs name, each once.

    In a folder, it finds all text files at any depth, sorted by name. It skips hidden files, and
    files that are not text.

    Args:
        tell: receives a line about the files that were skipped because they are not text.

    Raises:
        InputError: a path does not exist, or no file is text.
    """
    found: dict[Path, None] = {}
    left_out: list[Path] = []
    for given in paths:
        place = Path(given)
        if place.is_dir():
            for path in _walk(place):
                if is_text(path):
                    found[path] = None
                else:
                    left_out.append(path)
        elif place.exists():
            found[place] = None
        elif matches := sorted(glob.glob(given, recursive=True)):
            found |= {path: None for path in map(Path, matches) if path.is_file()}
        else:
            what = "no file matches" if glob.has_magic(given) else "no such file or folder"
            raise InputError(f"{given}: {what}")
    if left_out:
        some = ", ".join(str(path) for path in left_out[:3])
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        tell(f"left out, because it is not text: {some}{more}")
    if not found:
        raise InputError(f"{', '.join(paths)}: there is no text file in it")
    return list(found)


def is_text(path: Path) -> bool:
    """Whether a file begins with text in any encoding.

    Text that is not UTF-8 is not skipped: it causes an error later, so that the user notices.
    """
    if path.suffix in COMPRESSED:
        return _inner_suffix(path) not in (".tar",)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if encoding_of(head):
        return True
    known = advice(Source(str(path), path), head)
    return b"\0" not in head and (known is None or not _fails(head))


def _fails(head: bytes) -> bool:
    """Whether bytes are not UTF-8, ignoring an incomplete character at their end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return True
    return head.startswith(b"%PDF-")


def _walk(folder: Path) -> Iterator[Path]:
    """Yields a folder's files at any depth, sorted by name, except hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and not is_foreign(name) and path.is_file():
                yield path


def _inner_suffix(path: Path) -> str:
    """A file name's extension, ignoring the one for compression."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Opens a file: yields its uncompressed bytes, and the raw file, whose position is progress."""
    if not path.is_file():
        raise InputError(f"{path} is not a regular file")
    with path.open("rb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as file:
                yield file, raw  # type: ignore[misc]
        elif path.suffix == ".zst":
            yield io.BufferedReader(_Zstd(path, raw), CHUNK), raw
        else:
            yield raw, raw


class _Zstd(io.RawIOBase):
    """Reads a .zst file. Unlike the package's reader, it notices a truncated file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._package = optional("zstandard", f"{path}: a .zst file")
        self._file, self._rest = file, b""
        self._frame = self._package.ZstdDecompressor().decompressobj()
        self._is_within = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            data = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._is_within = (
                    self._package.ZstdDecompressor().decompressobj(),
                    False,
                )
            data = data or self._file.read(2**16)
            if not data:
                if self._is_within:
                    raise EOFError("it ends within a frame")
                return 0
            self._is_within = True
            try:
                self._rest = self._frame.decompress(data)
            except self._package.ZstdError as error:
                raise EOFError(str(error)) from error
            self._is_within = not self._frame.eof
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _decoded(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Yields a file's text, one chunk at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done, head = 0, b""
    while True:
        chunk = file.read(CHUNK)
        head = head or chunk
        pending = len(decoder.getstate()[0])
        nul = chunk.find(b"\0")
        if nul >= 0:
            raise _no_text(path, head, f"byte {done + nul} is NUL")
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at = done - pending + error.start
            raise _no_text(path, head, f"byte {at} (0x{error.object[error.start]:02x})") from error
        if text:
            yield text
        if not chunk:
            return
        done += len(chunk)


def _no_text(path: Path, head: bytes, problem: str) -> InputError:
    """The error for a file that is not UTF-8: names the byte, and says how to convert the file."""
    found = None if path.suffix in COMPRESSED else advice(Source(str(path), path), head)
    if found:
        what, way = found
        return InputError(f"{path} looks like {what}, not UTF-8 text ({problem}): {way}")
    return InputError(
        f"{path} is not UTF-8 text: {problem}; convert it with `iconv -f ENCODING -t UTF-8`, or "
        "leave it out"
    )


def _whole(chunks: Iterable[str]) -> Iterator[Piece]:
    """Yields the pieces of one document. Where they end does not depend on the chunks."""
    held = ""
    for chunk in chunks:
        held, start = held + chunk, 0
        while len(held) - start > AHEAD * PIECE:  # the piece ends before the held text does
            end = piece_end(held, start, PIECE)
            yield Piece(held[start:end], False)
            start = end
        held = held[start:]
    start = 0
    while start < len(held):
        end = piece_end(held, start, PIECE)
        yield Piece(held[start:end], end == len(held))
        start = end
