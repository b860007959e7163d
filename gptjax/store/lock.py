"""Locks a run's folder, so that only one process writes to it at a time."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gptjax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


@contextlib.contextmanager
def locked(
    path: Path, tell: Callable[[str], None], doing: str = "training", flag: str = "--out-dir"
) -> Iterator[None]:
    """Locks the folder at `path` against other processes that would write to it.

    The kernel holds the lock, on the folder itself: there is no lock file, and the lock ends with
    the process, however the process ends. Reading a run needs no lock.

    Args:
        tell: receives a line if the file system has no locks; the run continues without one.
        doing: what a process does in the folder, for the message.
        flag: the flag that names the folder, for the message.

    Raises:
        InputError: another process holds the lock; nothing was changed.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InputError(
                    f"another process is {doing} in {path}: wait until it ends, or stop it, "
                    f"or give another {flag}"
                ) from error
            tell(f"{path} cannot be locked ({error.strerror}): let no other process train in it")
        yield
    finally:
        os.close(descriptor)
