"""Decides which side wins what: functions from values to values, or objects that hold state.

A side wins a measure only if all its contestants are ahead of all contestants of the other side.
PyTorch has another compiler, so if PyTorch decides, the library counts as much as the design.
"""

from collections.abc import Callable, Mapping
from operator import lt
from typing import Any

from compare.contestants import CONTESTANTS
from compare.figures import MEASURES, Spread, join, order, show, spreads, table, title
from compare.report.expectations import expectations

Results = dict[str, Any]
Wins = dict[str, list[str]]
FUNCTIONAL, OBJECTS, NEITHER = "functional", "objects", "neither"
# A program must be this much shorter than the other side's shortest: one line may be chance.
SHORTER = 0.8
LENGTHS = {
    "seeds": "training 8 seeds at once",
    "per_example": "gradients per example",
    "resume": "resuming bit for bit",
    "freeze": "freezing layers",
    "activations": "inspecting activations",
    "replace": "replacing a layer",
    "surgery": "checkpoint surgery",
    "mixed": "mixed precision",
    "sharing": "sharing weights",
    "two_optimizers": "two optimizers",
}


def section(results: Results) -> str:
    """Returns the last section of the page."""
    wins: Wins = {FUNCTIONAL: [], OBJECTS: [], NEITHER: []}
    for add in (_by_measures, _by_lengths, _by_behaviour):
        for side, said in add(results):
            wins[side].append(said)
    neither = "; ".join(wins[NEITHER] or ["nothing"])
    return f"""## Functional or objects?

A side wins a measure only if all its contestants, plain and tuned, are ahead of all contestants of
the other side. It wins a short program only if all its versions are a fifth shorter than the other
side's shortest. If PyTorch decides, its library and compiler count as much as its design: for the
designs alone, see "Design against design".

### Where functional wins

{_bullets(wins[FUNCTIONAL])}
### Where objects win

{_bullets(wins[OBJECTS])}
### Where neither does

The numbers are in the tables above: {neither}.

### What one might expect, and what this run found

{table(["expected", "found", ""], expectations(results))}"""


def _bullets(said: list[str]) -> str:
    return "\n".join(f"- {one[0].upper()}{one[1:]}." for one in said or ["nothing"]) + "\n"


def winner(values: Mapping[str, float], ahead: Callable[[float, float], bool] = lt) -> str:
    """The side whose worst value is ahead of the other side's best; less is better."""
    functional = [v for name, v in values.items() if CONTESTANTS[name].functional]
    objects = [v for name, v in values.items() if not CONTESTANTS[name].functional]
    if functional and objects and ahead(max(functional), min(objects)):
        return FUNCTIONAL
    if functional and objects and ahead(max(objects), min(functional)):
        return OBJECTS
    return NEITHER


def _by_measures(results: Results) -> list[tuple[str, str]]:
    """The side that wins each measure, and the text about it."""
    said = []
    for key, measure in MEASURES.items():
        found = spreads(results["measures"], key)
        if len(found) < 2 or key == "tokens":  # tokens per second repeat the step's time
            continue
        groups = order(found, measure.more_is_better)
        place = {n: i for i, group in enumerate(groups) for n in group}
        # If a contestant has no place in the order, it could be anywhere, so no side wins.
        side = winner(place) if place.keys() == found.keys() else NEITHER
        name = measure.title.split(":")[0]
        said.append((side, name if side == NEITHER else f"{name}: {_values(groups, found, key)}"))
    return said


def _values(groups: list[list[str]], found: dict[str, Spread], key: str) -> str:
    shown = ", then ".join(
        " = ".join(f"{title(name)} {show(found[name].median)}" for name in group)
        for group in groups
    )
    return f"{shown} {MEASURES[key].unit}"


def _by_lengths(results: Results) -> list[tuple[str, str]]:
    said = []
    for topic, what in LENGTHS.items():
        if topic in results["ease"]:
            lines = {d: one["lines"] for d, one in results["ease"][topic]["designs"].items()}
            side = winner(lines, lambda a, b: a <= SHORTER * b)
            shown = ", ".join(f"{title(design)} {count}" for design, count in lines.items())
            said.append((side, f"lines for {what} ({shown})"))
    return said


def _by_behaviour(results: Results) -> list[tuple[str, str]]:
    """Who wins by what a debugger shows, and by how many accidents happen silently."""
    said = []
    facts = {
        topic: {design: one["facts"] for design, one in found["designs"].items()}
        for topic, found in results["ease"].items()
    }
    if "debugger" in facts:
        blind = {design: not one["as_it_trains"] for design, one in facts["debugger"].items()}
        seen = [title(design) for design in blind if not blind[design]]
        what = f"numbers at a breakpoint, as it trains (in {join(seen) if seen else 'none'})"
        said.append((winner(blind), what))
    if "hidden" in facts:
        silent = {
            design: sum(fate == "happens silently" for fate in one.values())
            for design, one in facts["hidden"].items()
        }
        shown = ", ".join(f"{title(design)} {count}" for design, count in silent.items())
        said.append((winner(silent), f"accidents that happen silently, of three ({shown})"))
    return said
