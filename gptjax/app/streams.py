"""The standard streams: closed ones lead nowhere, and one that fails costs only what it shows."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

# Whoever read a pipe has left; the terminal was closed.
GONE = (errno.EPIPE, errno.EIO)


def open_closed() -> None:
    """Puts the null device where a standard stream was closed (`>&-`) when the process began.

    Else `print(..., file=sys.stderr)` would write to standard output, because Python has None for a
    closed stream; and the next file to be opened, a checkpoint's perhaps, would get the number of
    that stream, and with it whatever a library written in C has to say.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                _open_number(number)
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115


def _open_number(number: int) -> None:
    """Opens the null device under a number, unless a file has it."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


def to_nowhere(stream: Any) -> None:
    """What a stream still holds, and all that follows, goes to the null device, at exit too."""
    with contextlib.suppress(OSError, ValueError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number)
        os.close(nowhere)


def settle(stream: Any) -> None:
    """Flushes a stream, or gives up what it holds: Python would fail at exit, with status 120."""
    try:
        stream.flush()
    except OSError:
        to_nowhere(stream)
    except ValueError:  # it was closed
        pass


class Lasting:
    """A text stream whose writes never fail: what cannot be written goes nowhere from then on.

    For what is only shown. A reader that has left is passed over in silence.

    Args:
        tell: receives one line if something else is wrong, as a full disk.
    """

    def __init__(self, stream: Any, tell: Callable[[str], None] = lambda _: None) -> None:
        self._stream = stream
        self._tell = tell
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or not."""
        with self._losing():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or not."""
        with self._losing():
            self._stream.flush()

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            is_first, self._is_lost = not self._is_lost, True
            to_nowhere(self._stream)
            if is_first and error.errno not in GONE:
                self._tell(f"what this shows is written no more: {error.strerror}")
        except ValueError:
            if not self._stream.closed:
                raise
