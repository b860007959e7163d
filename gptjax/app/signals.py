"""Signals that ask a run to end: they become a request, which the loop heeds when it can."""

import signal
import threading
import time
from types import FrameType
from typing import Any

# A second one of these leaves at once.
FROM_A_PERSON = (signal.SIGINT, signal.SIGTERM)
# Sent when the terminal closes, twice as often as not, and by schedulers some time before they
# kill. `nohup` starts a program that ignores the first.
FROM_A_SYSTEM = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
# `timeout -s INT` signals its child, and then the group that the child is in. Both are one request.
SAME_REQUEST_SECONDS = 0.2


class StopRequest:
    """Ctrl-C, SIGTERM, SIGHUP and SIGUSR1, turned into a request. A context manager.

    A second Ctrl-C or SIGTERM leaves at once, with what the process does by default; what is saved
    stays. SIGHUP and SIGUSR1 stay ignored where they were when the run began.

    Outside of the main thread Python has no handlers, so there nothing is a request.

    Attributes:
        signal: the number of the first one; None until then.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (*FROM_A_PERSON, *FROM_A_SYSTEM):
                if number in FROM_A_SYSTEM and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: something else than Python set it, and Python cannot set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        is_first = self.signal is None
        self.signal = number if self.signal is None else self.signal
        if number in FROM_A_PERSON and (is_first or self.signal not in FROM_A_PERSON):
            time.sleep(SAME_REQUEST_SECONDS)  # another that comes now changes nothing
            for waiting in FROM_A_PERSON:
                signal.signal(waiting, signal.SIG_DFL)
