"""Measures how long updates take, and decides how many to give the device at once."""

import time
from collections import deque
from collections.abc import Callable

# The time of an update is averaged over this many landings.
MARKS = 7


class Timer:
    """Seconds per update, averaged over the last few dispatches.

    A dispatch lands when the host has read its metrics. The average is the time between landings,
    divided by the updates between them, over at most the last `MARKS` landings since `restart`.

    It leaves out the first dispatch, which compiles; evaluations and saves, after which the loop
    calls `restart`; and a dispatch that lands right after another with nothing dispatched in
    between, because both were finished before the host looked.

    Single times would be wrong: where dispatching waits until the device is free, a dispatch's time
    shows up in the landing of the one before. Their sum is right. For the same reason, the time
    since a restart counts only when nothing else is in flight.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[int, float]] = deque(maxlen=MARKS)
        self._restarted: tuple[int, float] | None = None
        self._dispatched = False
        self.seconds_per_update: float | None = None

    def dispatched(self) -> None:
        """The device has been given a dispatch."""
        self._dispatched = True

    def landed(self, step: int, more: bool = False) -> None:
        """The dispatch that ends at `step` has landed; `more`: another is in flight."""
        now, begun = self._clock(), None
        if self._restarted and (not more or self.seconds_per_update is None):
            begun = self._restarted
        elif self._dispatched and self._marks:
            begun = self._marks[0]
        if begun is not None and step > begun[0]:
            self.seconds_per_update = (now - begun[1]) / (step - begun[0])
        self._marks.append((step, now))
        self._dispatched = False

    def restart(self, step: int) -> None:
        """Forgets the landings so far, because the time until now was spent on something else."""
        self._marks.clear()
        self._restarted = (step, self._clock())


class Stages:
    """Seconds of each stage of a command, in order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._stage: str | None = None
        self._seconds: dict[str, float] = {}

    def at(self, stage: str) -> None:
        """Starts a stage, or continues it."""
        now = self._clock()
        before = self._stage or stage  # the time before the first stage is the first stage's
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._began
        self._began, self._stage = now, stage

    def ended(self) -> dict[str, float]:
        """Ends the last stage, and returns the seconds of all."""
        self.at(self._stage or "all")
        return self._seconds


def updates_within(seconds: float, seconds_per_update: float | None) -> int:
    """How many updates take about `seconds`: at least 1, and 1 while their time is unknown."""
    return max(1, int(seconds / seconds_per_update)) if seconds_per_update else 1
