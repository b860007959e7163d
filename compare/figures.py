"""From measurements to what may be said: medians, spreads, and an order where there is one."""

from typing import NamedTuple

import numpy as np

from compare.contestants import CONTESTANTS

FEW = 5  # of fewer measurements, the spread is all of them


class Measure(NamedTuple):
    """What is measured.

    Attributes:
        title: in tables.
        unit: after scaling.
        scale: what the stored number (seconds, MB, a second) is multiplied with.
        more_is_better: of tokens per second.
    """

    title: str
    unit: str
    scale: float = 1.0
    more_is_better: bool = False


MEASURES = {
    "step": Measure("training step", "ms", 1e3),
    "tokens": Measure("training", "tokens/s", 1.0, True),
    "compile": Measure("compile: the first step less a later one", "s"),
    "start": Measure("start-up: from the command to a model in memory", "s"),
    "memory": Measure("peak memory of start-up and training", "MB"),
    "sample": Measure("sampling, one row", "tokens/s", 1.0, True),
    "first_token_cold": Measure("first token, the first time", "ms", 1e3),
    "first_token": Measure("first token, later", "ms", 1e3),
    "save": Measure("checkpoint, save", "ms", 1e3),
    "load": Measure("checkpoint, load", "ms", 1e3),
}


class Spread(NamedTuple):
    """The median, and from where to where the measurements lie."""

    median: float
    low: float
    high: float
    repeats: int


def spread(values: list[float], scale: float = 1.0) -> Spread:
    """Median and middle half; of fewer than FEW measurements, median and range."""
    scaled = np.array(values) * scale
    low, high = np.percentile(scaled, [25, 75] if len(values) >= FEW else [0, 100])
    return Spread(float(np.median(scaled)), float(low), float(high), len(values))


def spreads(measured: dict[str, dict[str, list[float]]], measure: str) -> dict[str, Spread]:
    """By contestant, for those that were measured."""
    scale = MEASURES[measure].scale
    return {
        name: spread(found[measure], scale) for name, found in measured.items() if measure in found
    }


def order(found: dict[str, Spread], more_is_better: bool = False) -> list[list[str]]:
    """The contestants from best to worst, in groups.

    Two stand in different groups only if their spreads do not overlap, nor those of a chain of
    others between them. One that was measured once has no spread, so no place.
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
    """Three digits, and whole numbers from a hundred on."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{digits}f}"


def show_spread(found: Spread) -> str:
    """`152 (148 to 160)`; a single measurement stands alone."""
    if found.repeats == 1:
        return f"{show(found.median)} (once)"
    return f"{show(found.median)} ({show(found.low)} to {show(found.high)})"


def show_order(groups: list[list[str]]) -> str:
    """`PyTorch, then Linen`, or that there is no order."""
    if len(groups) < 2:
        return "no order: the spreads overlap" if groups and len(groups[0]) > 1 else "no order"
    return ", then ".join(" = ".join(title(name) for name in group) for group in groups)


def title(name: str) -> str:
    """What a contestant is called in tables."""
    return CONTESTANTS[name].title
