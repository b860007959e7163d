"""Computes and formats medians, spreads, and the order of the contestants."""

from typing import NamedTuple

import numpy as np

from compare.contestants import CONTESTANTS

FEW = 5  # with fewer measurements, the spread is their whole range


class Measure(NamedTuple):
    """A quantity that is measured.

    Attributes:
        title: its name in tables.
        unit: the unit that is shown.
        scale: converts the stored number (seconds, MB, tokens per second) to that unit.
        more_is_better: True for tokens per second.
    """

    title: str
    unit: str
    scale: float = 1.0
    more_is_better: bool = False


MEASURES = {
    "step": Measure("training step, one per dispatch", "ms", 1e3),
    "steps": Measure("training step, several per dispatch", "ms", 1e3),
    "tokens": Measure("training", "tokens/s", 1.0, True),
    "compile": Measure("compile: the first step less a later one", "s"),
    "start": Measure("start-up: from the command to a model in memory", "s"),
    "memory": Measure("peak memory of start-up and training", "MB"),
    "sample": Measure("sampling with a cache", "tokens/s", 1.0, True),
    "sample_whole": Measure("sampling without a cache", "tokens/s", 1.0, True),
    "sample_packed": Measure("sampling with a cache and packed heads", "tokens/s", 1.0, True),
    "sample_served": Measure("sampling by `gptjax.generate`", "tokens/s", 1.0, True),
    "first_token_cold": Measure("first token, the first time", "ms", 1e3),
    "first_token": Measure("first token, later", "ms", 1e3),
    "save": Measure("checkpoint, save", "ms", 1e3),
    "load": Measure("checkpoint, load", "ms", 1e3),
}
NOT_MEASURED = "not measured"


class Spread(NamedTuple):
    """The median, and the range in which the measurements lie."""

    median: float
    low: float
    high: float
    repeats: int


def spread(values: list[float], scale: float = 1.0) -> Spread:
    """Median and middle half; with fewer than FEW measurements, median and whole range."""
    scaled = np.array(values) * scale
    low, high = np.percentile(scaled, [25, 75] if len(values) >= FEW else [0, 100])
    return Spread(float(np.median(scaled)), float(low), float(high), len(values))


def spreads(measured: dict[str, dict[str, list[float]]], measure: str) -> dict[str, Spread]:
    """The spreads by contestant, for those that were measured."""
    scale = MEASURES[measure].scale
    return {
        name: spread(found[measure], scale) for name, found in measured.items() if measure in found
    }


def order(found: dict[str, Spread], more_is_better: bool = False) -> list[list[str]]:
    """The contestants from best to worst, in groups.

    Two contestants are in different groups only if their spreads do not overlap, directly or
    through a chain of others between them. A contestant that was measured once has no spread, and
    so no place in the order.
    """
    ranked = [name for name in found if found[name].repeats > 1]
    ranked.sort(key=lambda name: found[name].median)
    groups: list[list[str]] = []
    highest = -np.inf
    for name in sorted(ranked, key=lambda name: found[name].low):
        if groups and found[name].low <= highest:
            groups[-1].append(name)
        else:
            groups.append([name])
        highest = max(highest, found[name].high)
    groups = [[name for name in ranked if name in group] for group in groups]
    return groups[::-1] if more_is_better else groups


def show(value: float) -> str:
    """Formats a number with three digits, and without decimals from 100 on."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{digits}f}"


def show_spread(found: Spread) -> str:
    """Formats a spread: `152 (148 to 160)`, or `152 (once)` for a single measurement."""
    if found.repeats == 1:
        return f"{show(found.median)} (once)"
    return f"{show(found.median)} ({show(found.low)} to {show(found.high)})"


def show_order(groups: list[list[str]]) -> str:
    """Formats an order, such as `PyTorch, then Linen`, or says that none is clear."""
    if len(groups) < 2:
        return "no order: the spreads overlap" if groups and len(groups[0]) > 1 else "no order"
    return ", then ".join(" = ".join(title(name) for name in group) for group in groups)


def title(name: str) -> str:
    """A contestant's name in tables and sentences."""
    return CONTESTANTS[name].title


def join(parts: list[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
