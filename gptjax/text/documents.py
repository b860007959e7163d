"""The documents of a corpus: files, folders and globs, read one piece at a time.

Each text file is a document, whatever its size, and so is each line of a .jsonl file. Files may be
compressed (.gz, .zst). Neither the compression nor the order in which a folder lists its files
changes the text.
"""

import codecs
import glob
import gzip
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
from gptjax.text.compressed import COMPRESSED, inner_suffix, opened
from gptjax.text.kinds import Source, advice, encoding_of
from gptjax.text.prepared import describes_prepared

CHUNK = 2**20
# The number of bytes that are read to find out whether a file is text.
HEAD = 2**13
# The longest line of a .jsonl file, because a whole line must fit into memory.
MAX_LINE = 2**28
LINES = (".jsonl", ".ndjson")


class Piece(NamedTuple):
    """A part of a document.

    Attributes:
        is_last: whether it is the document's last one.
        is_val: whether it is for validation; None if the documents are not divided yet.
    """

    text: str
    is_last: bool
    is_val: bool | None = None


class Stretch(NamedTuple):
    """The bytes of a file from `start` to `stop` (None: the file's end).

    Neither `start` nor `stop` may be within a character.
    """

    path: Path
    start: int = 0
    stop: int | None = None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return (self.path.stat().st_size if self.stop is None else self.stop) - self.start


class Documents:
    """The documents of some files, in order.

    Attributes:
        files: paths of all files.
        bytes: the size of all files on disk.
        read: the number of these bytes that have been read, for a progress display.
        first_val: the number of the first file that is for validation; None if the files do not
            say, and `dividing` decides.
    """

    def __init__(
        self,
        files: Sequence[Path | Stretch],
        field: str = "text",
        first_val: int | None = None,
        separator: str = "",
    ) -> None:
        """Describes what to read.

        Args:
            files: paths, or stretches of files.
            field: the field of a .jsonl file's objects that contains the text.
            first_val: as in the attributes.
            separator: the text between two documents in a file; if empty, a file is one document.
        """
        self._stretches = [x if isinstance(x, Stretch) else Stretch(x) for x in files]
        self.files = [stretch.path for stretch in self._stretches]
        self.first_val, self._field, self._separator = first_val, field, separator
        self.bytes = sum(stretch.size for stretch in self._stretches)
        self.read = 0

    def pieces(self) -> Iterator[Piece]:
        """Yields every document's text, in pieces that can be encoded alone. Skips empty documents.

        Raises:
            InputError: a file is not UTF-8 text or is truncated, or a line of a .jsonl file is not
                valid; the message names the file, and the byte or the line.
        """
        before = 0
        for number, stretch in enumerate(self._stretches):
            with opened(stretch.path) as (file, raw):
                try:
                    for piece in self._of_file(stretch, file):
                        self.read = before + raw.tell() - stretch.start
                        yield self._divided(piece, number)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise InputError(f"{stretch.path} is truncated or damaged: {error}") from error
            before += stretch.size
        self.read = self.bytes

    def _divided(self, piece: Piece, number: int) -> Piece:
        """Adds the split to a piece, if the number of its file says it."""
        if self.first_val is None:
            return piece
        return piece._replace(is_val=number >= self.first_val)

    def _of_file(self, stretch: Stretch, file: IO[bytes]) -> Iterator[Piece]:
        path = stretch.path
        if inner_suffix(path) in LINES:
            for text in self._lines(path, file):
                yield from _whole([text])
            return
        if stretch.start:
            file.seek(stretch.start)
        texts = _decoded(stretch, file)
        for document in _separated(texts, self._separator) if self._separator else [texts]:
            yield from _whole(document)

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

    In a folder, it finds all text files at any depth, sorted by name. It skips hidden files, files
    that are not text, and those of prepared text.

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
                if is_text(path) and not describes_prepared(path):
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
        tell(f"skipped, because not text: {some}{more}")
    if not found:
        raise InputError(f"found no text file in {', '.join(paths)}")
    return list(found)


def is_text(path: Path) -> bool:
    """Whether a file begins with text in any encoding.

    Text that is not UTF-8 is not skipped: it causes an error later, so that the user notices.
    """
    if path.suffix in COMPRESSED:
        return inner_suffix(path) not in (".tar",)
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


def _decoded(stretch: Stretch, file: IO[bytes]) -> Iterator[str]:
    """Yields the text of a stretch, one chunk at a time. `file` is at the start of it."""
    path, stop = stretch.path, stretch.stop
    decoder = codecs.getincrementaldecoder("utf-8")()
    done, head = stretch.start, b""
    while True:
        chunk = file.read(CHUNK if stop is None else min(CHUNK, stop - done))
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


def _separated(chunks: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Yields the documents of one file, without the separators and the newlines around them."""
    held = ""
    for chunk in chunks:
        *whole, held = (held + chunk).split(separator)
        for text in whole:
            yield [text.strip("\n")]
    yield [held.strip("\n")]


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
