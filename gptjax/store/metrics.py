"""metrics.jsonl: one JSON object per logged step, in order, each step once."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptjax.files import append, flush, open_regular, parse_json, whole_file

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
                    file.write(_bytes(line))
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
            append(self._path, _bytes(line))
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
    """The lines of a metrics.jsonl, none if there is no file; what is no line is left out.

    That is a torn one, one that is not of finite numbers, and one whose step is not after the
    last's.

    Raises:
        InputError: it is no regular file.
    """
    if not path.exists() and not path.is_symlink():
        return
    before = 0
    with open_regular(path) as file:
        while data := file.readline(MAX_LINE_BYTES):
            if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
                while rest := file.readline(MAX_LINE_BYTES):
                    if rest.endswith(b"\n"):
                        break
                continue
            try:
                line = parse_json(data)
            except ValueError:
                continue
            if _is_line(line) and line["step"] > before:
                before = line["step"]
                yield line


def count_lines(path: Path) -> int:
    """How many lines there are, of metrics or not; an unfinished last one counts.

    Raises:
        InputError: it is no regular file.
    """
    lines, last = 0, b"\n"
    if path.exists() or path.is_symlink():
        with open_regular(path) as file:
            while data := file.read(2**20):
                lines, last = lines + data.count(b"\n"), data[-1:]
    return lines + (last != b"\n")


def _is_line(value: Any) -> bool:
    def is_number(x: Any) -> bool:
        return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 2**63

    return (
        isinstance(value, dict)
        and isinstance(value.get("step"), int)
        and "seconds" in value
        and all(map(is_number, value.values()))
    )


def _bytes(line: dict[str, Any]) -> bytes:
    return (json.dumps(line, allow_nan=False) + "\n").encode()
