"""metrics.jsonl: one JSON object per logged step, in order, each step once."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptjax.files import append, flush, whole_file
from gptjax.store.lines import as_line, read_lines

# A line is about 150 bytes. A stranger's may be endless.
MAX_LINE_BYTES = 4096


class MetricsLog:
    """Appends to a run's metrics.jsonl.

    Opening it drops the lines after `step`, from which the run goes on, and what is no line of
    metrics. Nothing of its length is kept in memory.

    Attributes:
        last: the newest line; empty before the first.
        best: the lowest validation loss, in nats per token; None before the first.
    """

    def __init__(self, path: Path | None, step: int) -> None:
        """Reads and cleans the file; without a path, lines are only noted, and nothing is written.

        A run of several processes has one file, which process 0 writes.
        """
        self.last: dict[str, Any] = {}
        self.best: float | None = None
        self._path = path
        if path is None:
            return
        with whole_file(path) as file:
            for line in read_metrics(path):
                if line["step"] <= step:
                    file.write(as_line(line))
                    self._note(line)

    @property
    def seconds(self) -> float:
        """Time spent running so far, by the last line."""
        return self.last.get("seconds", 0.0)

    def add(self, **line: Any) -> None:
        """Appends a line: `step` and `seconds` always, the other fields as they are known.

        Raises:
            OSError: it cannot be written; the file is as it was.
        """
        if self._path is not None:
            append(self._path, as_line(line))
        self._note(line)

    def flush(self) -> None:
        """Has all lines on the disk before it returns: a checkpoint must not outlive them."""
        if self._path is not None:
            flush(self._path)

    def _note(self, line: dict[str, Any]) -> None:
        self.last = line
        if "val_loss" in line:
            self.best = min(line["val_loss"], math.inf if self.best is None else self.best)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl, none if there is no file; malformed lines are skipped.

    That is a torn one, one that is not of finite numbers, and one whose step is not after the
    last's.

    Raises:
        InputError: it is no regular file.
    """
    return read_lines(path, _is_line, MAX_LINE_BYTES)


def _is_line(value: Any) -> bool:
    def is_number(x: Any) -> bool:
        return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 2**63

    return (
        isinstance(value, dict)
        and isinstance(value.get("step"), int)
        and "seconds" in value
        and all(map(is_number, value.values()))
    )


class Thinned:
    """Points of a curve, every second one dropped whenever there are more than a picture shows."""

    def __init__(self, limit: int = 4096) -> None:
        self.points: list[tuple[float, float]] = []
        self._limit = limit
        self._every = 1
        self._seen = 0

    def add(self, x: float, y: float) -> None:
        """The next point."""
        if self._seen % self._every == 0:
            self.points.append((x, y))
        self._seen += 1
        if len(self.points) > self._limit:
            del self.points[1::2]
            self._every *= 2
