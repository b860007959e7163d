"""How much the host's part of a dispatch costs: 1, 10 and 100 updates at once."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.accelerator_parts.shapes import shape_of
from benchmarks.accelerator_parts.training import Training

Row = dict[str, Any]
AT_ONCE = (1, 10, 100)


def measure(found: Callable[[Row], None], *, shape: str, quick: bool) -> None:
    """A row for each number of updates, taking turns."""
    training = Training(shape_of(shape, quick))
    most = 10 if quick else max(AT_ONCE)
    counts = [count for count in AT_ONCE if count <= most]
    training.seconds(most, most)
    steps: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(2 if quick else 5):
        for count in counts:
            steps[count].append(training.seconds(most, count))
            found({"key": str(count), "at_once": count, "step": steps[count]})


def table(rows: list[Row], **_: Any) -> str:
    """Milliseconds of an update by updates a dispatch."""
    lines = ["| updates a dispatch | ms an update, median | range |", "|--:|--:|--:|"]
    for row in rows:
        low, middle, high = min(row["step"]), statistics.median(row["step"]), max(row["step"])
        lines.append(
            f"| {row['at_once']} | {1000 * middle:,.3f} | {1000 * low:,.3f} to {1000 * high:,.3f} |"
        )
    return "\n".join(lines)
