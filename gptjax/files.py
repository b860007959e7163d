"""Files written whole or not at all, and read with limits, because a run may be a stranger's.

A run's own files are replaced, never written through: a link in a run might lead out of it. Paths
that a user names may be links, devices or pipes: text/outputs.py writes to those.
"""

import contextlib
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from gptjax.errors import InputError

# A character tokenizer of all of Unicode is 13 MB in ASCII; all else is far smaller. Parsed, JSON
# takes at most about 25 times its size, so this also bounds the memory that it can take.
MAX_JSON_BYTES = 16 * 2**20

# Do not wait for the writer of a pipe, and do not follow a link; 0 where the system lacks these.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | _NO_WAIT

# Files that operating systems leave in folders; SECURITY.md has the same list.
_FOREIGN = (".ds_store", "thumbs.db", "desktop.ini", ".gitkeep")
_FOREIGN_BEGINNINGS = ("._", ".nfs")


def is_foreign(name: str) -> bool:
    """Whether a file of this name was left by the operating system.

    Such a file is never read. It is ignored where other unknown files are refused.
    """
    return name.lower() in _FOREIGN or name.startswith(_FOREIGN_BEGINNINGS)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into that takes the place of `path` when the block ends without an error.

    It is written next to `path`, flushed to the disk, and renamed. It keeps the permissions of the
    file that it replaces. A link is replaced, not followed.

    Raises:
        OSError: it cannot be written, or the block failed; the file at `path` is unchanged.
    """
    with naming(path):
        prefix = _temporary_prefix(path.name)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix)
    try:
        with naming(path):
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, _mode(path))  # mkstemp's files are private
            os.replace(temporary, path)
            flush(path.parent)  # or a power cut may undo the rename
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes `content` to `path`, whole or not at all.

    Raises:
        OSError: it cannot be written; the file at `path` is unchanged.
    """
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def is_temporary(path: Path, name: str) -> bool:
    """Whether `path` is a temporary file that a killed `whole_file` left beside `name`."""
    prefix = re.escape(_temporary_prefix(name))
    return re.fullmatch(rf"{prefix}[a-z0-9_]{{8}}", path.name) is not None


def as_json(value: Any) -> str:
    """One JSON value as indented ASCII text, ready to write to a file."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON value with `write_whole`."""
    write_whole(path, as_json(value))


def read_json(path: Path, limit: int = MAX_JSON_BYTES, links: bool = False) -> dict[str, Any]:
    """Reads one JSON object.

    Args:
        limit: bytes; a larger file is refused.
        links: as in `open_regular`.

    Raises:
        InputError: the file is missing, unreadable, too large, or not a JSON object.
    """
    with open_regular(path, links) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{path} is larger than {limit} bytes, so no run wrote it")
    try:
        value = parse_json(data)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_json(data: bytes) -> Any:
    """One JSON value by the standard, which has no NaN and no Infinity.

    Raises:
        ValueError: it is not JSON, or nested deeper than Python can follow.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number in JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def open_regular(path: Path, links: bool = False) -> io.BufferedReader:
    """Opens a regular file for reading: never a pipe or a device.

    Args:
        links: follow links. Leave this off in a run, which may be a stranger's.

    Raises:
        InputError: it is missing, unreadable, or not a regular file.
    """
    if path.is_symlink() and not links:
        raise InputError(f"{path} is a link, which a run must not contain")
    try:
        descriptor = os.open(path, os.O_RDONLY | (_NO_WAIT if links else _SAFELY))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file")
    return open(descriptor, "rb")


def append(path: Path, data: bytes) -> None:
    """Appends to a file, all of `data` or nothing.

    Raises:
        OSError: it cannot be written; the file is unchanged.
    """
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _SAFELY, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                # One call, so that no kill comes between two halves.
                written = os.write(descriptor, data)
                if written < len(data):  # the disk is full: this write raises the error
                    os.write(descriptor, data[written:])
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


def flush(path: Path) -> None:
    """Flushes a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds a path to errors that have none, such as those of `write`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _temporary_prefix(name: str) -> str:
    return f".{name}-"


def _mode(path: Path) -> int:
    """The permissions of the file at `path`, or those that a new file gets."""
    with contextlib.suppress(OSError):
        before = os.lstat(path).st_mode
        if stat.S_ISREG(before):
            return stat.S_IMODE(before)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
