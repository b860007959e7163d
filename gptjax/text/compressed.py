"""Opens files that may be compressed (.gz, .zst)."""

import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gptjax.errors import InputError
from gptjax.text.packages import optional

COMPRESSED = (".gz", ".zst")
CHUNK = 2**20


def inner_suffix(path: Path) -> str:
    """A file name's extension, ignoring the one for compression."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Opens a file: yields its uncompressed bytes, and the raw file, whose position is progress."""
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: save it to one first")
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
                    raise EOFError("it ends in the middle of a frame")
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
