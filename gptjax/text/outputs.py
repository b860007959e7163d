"""Writes to a path that the user named, which may be a link, a device or a pipe."""

import errno
import os
import re
import sys
from pathlib import Path

from gptjax.errors import InputError
from gptjax.files import naming, write_whole

# Paths that name an open descriptor of this process. Opening such a path a second time would start
# at the beginning of the file and overwrite what was printed.
_DESCRIPTOR = re.compile(r"/dev/std(?P<name>in|out|err)|/(dev|proc/self)/fd/(?P<number>\d{1,9})")

# Errors of a rename where the file is writable but its folder is not: a single file mounted into a
# container, or a folder that allows no new files.
_NO_RENAME = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS)


def write_named(path: Path, content: bytes | str) -> None:
    """Writes `content` to a path that the user named.

    A regular file is written whole or not at all, if its folder allows that. A link stays a link,
    and its target is written. A device or a pipe is opened and written to. A path that names a
    descriptor of this process (/dev/stdout, a shell's `>(...)`) is written through that descriptor.

    Raises:
        OSError: the path cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with naming(path):
        own = descriptor_of(path)
        if own is not None:
            for stream in (sys.stdout, sys.stderr):  # earlier output must come first
                if stream is not None:
                    stream.flush()
            _write_all(os.dup(own), data)
        elif path.exists() and not path.is_file():
            _write_all(os.open(path, os.O_WRONLY), data)
        else:
            target = Path(os.path.realpath(path))
            try:
                write_whole(target, data)
            except OSError as error:
                if error.errno not in _NO_RENAME or not target.is_file():
                    raise
                _write_all(os.open(target, os.O_WRONLY | os.O_TRUNC), data)


def check_named(path: Path, flag: str) -> None:
    """Checks, before the work starts, that `write_named` will be able to write.

    Args:
        flag: the flag that names this path, for the message.

    Raises:
        InputError: the path is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise InputError(f"{flag} {path} is a folder: give the path of a file")
    if not path.exists() and not Path(os.path.realpath(path)).parent.is_dir():
        raise InputError(f"{flag} {path}: there is no such folder to write it in")


def descriptor_of(path: Path) -> int | None:
    """The descriptor of this process that a path names, directly or through links."""
    place = os.path.abspath(path)
    for _ in range(40):  # as many links as the kernel follows
        if match := _DESCRIPTOR.fullmatch(place):
            number = match["number"]
            return int(number) if number else ("in", "out", "err").index(match["name"])
        if not os.path.islink(place):
            return None
        place = os.path.abspath(os.path.join(os.path.dirname(place), os.readlink(place)))
    return None


def _write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, also to a pipe that accepts little at a time, and closes."""
    with open(descriptor, "wb") as file:
        file.write(data)
