"""A profile of training, condensed to the costliest operations, summed over all layers."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.accelerator_parts.shapes import shape_of
from benchmarks.accelerator_parts.training import Training

Row = dict[str, Any]
MOST = 10
UPDATES = 10
# Instructions in XLA's text, with the place in the model's code from which each comes.
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*op_name="([^"]*)"', re.MULTILINE)


class Event(NamedTuple):
    """An operation that ran once, on one line of the profile; times in nanoseconds."""

    line: str
    operation: str
    kernel: str
    start: float
    duration: float


def measure(found: Callable[[Row], None], *, shapes: list[str], quick: bool) -> None:
    """A row for each shape."""
    updates = 2 if quick else UPDATES
    for shape in shapes[:1] if quick else shapes:
        training = Training(shape_of(shape, quick))
        training.seconds(updates, updates)
        with tempfile.TemporaryDirectory(prefix="gptjax-profile-") as folder:
            with jax.profiler.trace(folder):
                step = training.seconds(updates, updates)
            events = [event for path in Path(folder).rglob("*.xplane.pb") for event in read(path)]
        places = dict(INSTRUCTION.findall(training.program.as_text()))
        costs = condensed(events, places)
        found(
            {
                "key": shape,
                "shape": shape,
                "step": step,
                "busy": sum(cost["seconds"] for cost in costs) / updates,
                "costs": [cost | {"seconds": cost["seconds"] / updates} for cost in costs[:MOST]],
            }
        )


def read(path: Path) -> Iterable[Event]:
    """Reads the operations of a profile: a GPU's kernels, or the operations of a TPU or CPU.

    A kernel that a CUDA graph started has only its own name, not that of an operation.
    """
    profile = jax.profiler.ProfileData.from_file(str(path))
    for plane in profile.planes:
        lines = list(plane.lines)
        if plane.name.startswith("/device:"):  # with its own summaries, if it has any, beside it
            names = {line.name for line in lines}
            lines = [x for x in lines if x.name == "XLA Ops" or "XLA Ops" not in names]
            lines = [x for x in lines if x.name == "XLA Ops" or x.name.startswith("Stream")]
        for line in lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation is None and plane.name.startswith("/device:"):
                    operation = event.name
                if operation is not None:
                    where = f"{plane.name} {line.name}"
                    start, duration = event.start_ns, event.duration_ns
                    yield Event(where, str(operation), event.name, start, duration)


def condensed(events: Iterable[Event], places: dict[str, str]) -> list[Row]:
    """Sums the time of each kind of operation; the costliest comes first.

    A loop's time includes the time of the operations inside it. Therefore, an operation's time is
    subtracted from that of the operation around it on the same line.

    Args:
        places: the place in the code of each operation, by its name.

    Returns:
        For each kind: its `place`, with * for a block's number, its `kind`, a `kernel`, the number
        of `times` it ran, and its total `seconds`.
    """
    by_line: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_line[event.line].append(event)
    totals: dict[tuple[str, str], Row] = {}
    for line in by_line.values():
        around: list[tuple[float, tuple[str, str]]] = []
        for event in sorted(line, key=lambda event: (event.start, -event.duration)):
            key = _place(places.get(event.operation, "")), _kind(event.operation)
            row = totals.setdefault(
                key,
                {"place": key[0], "kind": key[1], "kernel": event.kernel, "times": 0, "seconds": 0},
            )
            row["times"] += 1
            row["seconds"] += event.duration / 1e9
            end = event.start + event.duration
            while around and around[-1][0] <= event.start:
                around.pop()
            if around and end <= around[-1][0]:
                totals[around[-1][1]]["seconds"] -= event.duration / 1e9
            around.append((end, key))
    return sorted(totals.values(), key=lambda row: -row["seconds"])


def _place(op_name: str) -> str:
    """A place in the model's code, the same for all blocks."""
    inside = op_name.rpartition("while/body/")[2]
    return re.sub(r"block_\d+", "block_*", inside)


def _kind(operation: str) -> str:
    """An operation's name without its number."""
    return re.sub(r"(\.\d+)+$", "", operation)


def table(rows: list[Row], **_: Any) -> str:
    """For each shape, its costliest operations."""
    parts = []
    for row in rows:
        shares = sum(cost["seconds"] for cost in row["costs"]) / row["busy"] if row["busy"] else 0
        lines = [
            f"{row['shape']}: {1000 * row['step']:,.2f} ms a step, of which operations take "
            f"{1000 * row['busy']:,.2f}; the {len(row['costs'])} below are {shares:.0%} of that.",
            "",
            "| ms a step | share | times | what | where | kernel |",
            "|--:|--:|--:|---|---|---|",
        ]
        for cost in row["costs"]:
            place, kernel = (cost[name].replace("|", "/") for name in ("place", "kernel"))
            lines.append(
                f"| {1000 * cost['seconds']:,.3f} | {cost['seconds'] / row['busy']:.1%} "
                f"| {cost['times']} | {cost['kind']} | `{place or '-'}` | `{kernel[:60]}` |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
