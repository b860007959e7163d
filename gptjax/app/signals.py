"""Signals that ask a run to stop: the handler sets a flag, which the loop checks."""

import signal
import threading
import time
from types import FrameType
from typing import Any

# A second one of these signals ends the process at once.
FROM_A_PERSON = (signal.SIGINT, signal.SIGTERM)
# SIGHUP is sent when the terminal closes, often twice; `nohup` makes a program ignore it.
# Schedulers send SIGUSR1 some time before they kill a job.
FROM_A_SYSTEM = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
# `timeout -s INT` signals its child and then the child's process group. Both are one request.
SAME_REQUEST_SECONDS = 0.2


class StopRequest:
    """Records the first Ctrl-C, SIGTERM, SIGHUP or SIGUSR1. A context manager.

    A second Ctrl-C or SIGTERM ends the process at once, by the signal's default action; saved
    checkpoints stay. SIGHUP and SIGUSR1 stay ignored if they were ignored before.

    Python can install handlers only in the main thread. In another thread this class does nothing.

    Attributes:
        signal: the number of the first signal received; None until then.
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
            # None: the handler was not set from Python, so Python cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        is_first = self.signal is None
        self.signal = number if self.signal is None else self.signal
        if number in FROM_A_PERSON and (is_first or self.signal not in FROM_A_PERSON):
            time.sleep(SAME_REQUEST_SECONDS)  # a second signal in this time is ignored
            for waiting in FROM_A_PERSON:
                signal.signal(waiting, signal.SIG_DFL)
