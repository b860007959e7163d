"""Files that are written whole or not at all, and read with limits: a run may be a stranger's."""

import contextlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from gptjax.errors import InputError

# A character tokenizer of all of Unicode is 13 MB in ASCII; all else is far smaller. Parsed, JSON
# takes at most about 25 times its size, so this also bounds the memory that it can take.
MAX_JSON_BYTES = 16 * 2**20

# Neither a link nor a wait for whoever writes into a pipe; 0 where the system knows neither.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into that takes the place of `path` when the block ends without an error.

    It is written beside `path`, flushed to the disk, and renamed.

    Raises:
        OSError: it cannot be written, or the block failed; what was at `path` is as it was.
    """
    with naming(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path))
    try:
        with naming(path):
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private
            os.replace(temporary, path)
            flush(path.parent)  # or a power cut may undo the rename
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes `content` to `path`, wholly or not at all.

    Raises:
        OSError: it cannot be written; what was at `path` is as it was.
    """
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def temporary_prefix(path: Path) -> str:
    """How the names of the files begin that a killed `whole_file(path)` leaves beside `path`."""
    return f".{path.name}-"


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON value, indented, in ASCII."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Reads one JSON object.

    Args:
        limit: bytes; a larger file is refused.

    Raises:
        InputError: the file is missing, unreadable, too large, or not a JSON object.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{path}: larger than {limit} bytes, so no file of a run")
    try:
        value = parse_json(data)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_json(data: bytes) -> Any:
    """One JSON value, by the standard: NaN and Infinity are none.

    Raises:
        ValueError: it is not JSON, or nested deeper than Python can follow.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON's")

    try:
        return json.loads(data, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a file to read, if it is one: never a link, a pipe or a device.

    Raises:
        InputError: it is missing, unreadable, or something else than a file.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link: nothing in a run may lead out of it")
    try:
        descriptor = os.open(path, os.O_RDONLY | _SAFELY)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file")
    return open(descriptor, "rb")


def append(path: Path, data: bytes) -> None:
    """Appends to a file, all of `data` or nothing.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _SAFELY, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                # One call, so that no kill comes between two halves.
                written = os.write(descriptor, data)
                if written < len(data):  # the disk is full: the rest says so
                    os.write(descriptor, data[written:])
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


def flush(path: Path) -> None:
    """Has a file's bytes, or a folder's names, on the disk before it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts a path into errors that come without one, as those of `write` do."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
