"""metrics.jsonl: one JSON object per logged step, in order, with each step once."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptjax.files import append, flush, whole_file
from gptjax.store.lines import as_line, read_lines

# A line has about 150 bytes. The limit protects against a hostile file.
MAX_LINE_BYTES = 4096


class MetricsLog:
    """Appends to a run's metrics.jsonl.

    Opening the file drops malformed lines, and the lines after `step`, where the run continues. Its
    memory use does not grow with the file.

    Attributes:
        last: the newest line; empty before there is one.
        best: the lowest validation loss, in nats per token; None before there is one.
    """

    def __init__(self, path: Path | None, step: int) -> None:
        """Reads and cleans the file. If `path` is None, `add` writes nothing.

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
        """Seconds that the run has taken so far, from the last line."""
        return self.last.get("seconds", 0.0)

    def add(self, **line: Any) -> None:
        """Appends a line. It must have `step` and `seconds`; other fields are optional.

        Raises:
            OSError: the line cannot be written; the file is unchanged.
        """
        if self._path is not None:
            append(self._path, as_line(line))
        self._note(line)

    def flush(self) -> None:
        """Flushes all lines to disk, so that a crash cannot lose those before a checkpoint."""
        if self._path is not None:
            flush(self._path)

    def _note(self, line: dict[str, Any]) -> None:
        self.last = line
        if "val_loss" in line:
            self.best = min(line["val_loss"], math.inf if self.best is None else self.best)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a metrics.jsonl, or none if the file does not exist.

    Skips malformed lines: incomplete JSON, values that are not finite numbers, and steps that are
    not greater than the previous one.

    Raises:
        InputError: the path is not a regular file.
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
    """Points of a curve. Whenever there are more than `limit`, drops every second one."""

    def __init__(self, limit: int = 4096) -> None:
        self.points: list[tuple[float, float]] = []
        self._limit = limit
        self._every = 1
        self._seen = 0

    def add(self, x: float, y: float) -> None:
        """Adds the next point."""
        if self._seen % self._every == 0:
            self.points.append((x, y))
        self._seen += 1
        if len(self.points) > self._limit:
            del self.points[1::2]
            self._every *= 2
