"""Keeps a script running when its standard streams are closed or cannot be written."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

# The reader of a pipe has exited, or the terminal was closed.
GONE = (errno.EPIPE, errno.EIO)


def open_closed() -> None:
    """Opens the null device for each standard stream that was closed (`>&-`) at the start.

    Python sets a closed stream to None, and `print(..., file=None)` writes to standard output.
    Also, the next file to be opened, such as a checkpoint's, would get that stream's descriptor,
    and C libraries would write their messages into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                _open_number(number)
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115


def _open_number(number: int) -> None:
    """Opens the null device as this descriptor, unless the descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


def to_nowhere(stream: Any) -> None:
    """Redirects a stream to the null device, including its buffered output."""
    with contextlib.suppress(OSError, ValueError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number)
        os.close(nowhere)


def settle(stream: Any) -> None:
    """Flushes a stream, or drops its buffer. Otherwise Python would exit with status 120."""
    try:
        stream.flush()
    except OSError:
        to_nowhere(stream)
    except ValueError:  # the stream is closed
        pass


class Lasting:
    """A text stream for progress output. Writes never fail: after an error, it drops output.

    Args:
        tell: receives one line about the first error, such as a full disk. It is not told that the
            reader has exited.
    """

    def __init__(self, stream: Any, tell: Callable[[str], None] = lambda _: None) -> None:
        self._stream = stream
        self._tell = tell
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text, or drops it."""
        with self._losing():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, or drops what it buffers."""
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
                self._tell(f"the output can no longer be written: {error.strerror}")
        except ValueError:
            if not self._stream.closed:
                raise
