"""One process at a time in a run's folder."""

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
    """Holds the folder at `path` against other processes that write to it.

    The lock is the kernel's, on the folder itself: it adds no file, and goes with the process,
    however that ends. Reading a run needs no lock.

    Args:
        tell: receives a line where the file system has no locks; the run goes on without.
        doing, flag: what a process does in the folder, and which flag names it, for the message.

    Raises:
        InputError: another process holds it; nothing was touched.
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
