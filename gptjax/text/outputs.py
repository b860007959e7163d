"""Files that a person names to write to: a link, a device or a pipe as well as a regular file."""

import errno
import os
import re
import sys
from pathlib import Path

from gptjax.errors import InputError
from gptjax.files import naming, write_whole

# Paths that are descriptors of this process. To open one anew would start at the file's beginning.
_DESCRIPTOR = re.compile(r"/dev/std(?P<name>in|out|err)|/(dev|proc/self)/fd/(?P<number>\d{1,9})")

# What a rename meets where the file can be written and its folder cannot: a single file that is
# mounted into a container, or a folder that takes no new names.
_NO_RENAME = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS)


def write_named(path: Path, content: bytes | str) -> None:
    """Writes `content` to a path that a person named, which need not be a regular file.

    A regular file is written wholly or not at all, where its folder allows it. A link stays, and
    its target is written. Devices and pipes are opened and written as they are, and what is one
    of this process's descriptors (/dev/stdout, a shell's `>(...)`) goes to that.

    Raises:
        OSError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with naming(path):
        own = descriptor_of(path)
        if own is not None:
            for stream in (sys.stdout, sys.stderr):  # what was printed before comes before
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
    """Says before the work starts what would keep `write_named` from ending it.

    Args:
        flag: what the person typed before the path.

    Raises:
        InputError: it is a folder, or would be in one that does not exist.
    """
    if path.is_dir():
        raise InputError(f"{flag} {path} is a folder: give the path of a file")
    if not path.exists() and not Path(os.path.realpath(path)).parent.is_dir():
        raise InputError(f"{flag} {path}: there is no such folder to write it in")


def descriptor_of(path: Path) -> int | None:
    """The descriptor of this process that a path stands for, itself or as a link's target."""
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
    """Writes all of `data`, however small the pieces that a pipe takes, and closes."""
    with open(descriptor, "wb") as file:
        file.write(data)
