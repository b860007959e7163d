"""Compares pairs of contestants that differ only in their design.

Linen, NNX and plain JAX share a compiler. The three plain contestants compute the same matrix
products, and so do the three tuned ones. Each run counts the products, and the page compares two
designs only if their counts are equal.
"""

from itertools import combinations
from typing import Any, NamedTuple

from compare.contestants import CONTESTANTS
from compare.figures import MEASURES, NOT_MEASURED, Spread, order, spreads, table, title

Results = dict[str, Any]
PLAIN, TUNED = ("linen", "nnx", "plain"), ("linen-tuned", "nnx-tuned", "plain-tuned")
PAIRS = (*combinations(PLAIN, 2), *combinations(TUNED, 2))
# The program that a measure times. Start-up, memory and checkpoints also depend on the library.
PROGRAM = {
    "step": "training",
    "steps": "training",
    "compile": "training",
    "sample": "sampling",
    "first_token": "sampling",
}


class Verdict(NamedTuple):
    """What the numbers say about two contestants in one measure.

    Attributes:
        first: the contestant that is ahead; None if the order is unclear.
        factor: the ratio of the medians, at least 1.
        spreads: the spreads of both contestants, in the order of the arguments.
    """

    first: str | None
    factor: float
    spreads: tuple[Spread, Spread]


def same_products(results: Results, one: str, other: str, program: str) -> bool | None:
    """Whether two compiled programs have the same products; None if one was not counted."""
    found = [results["programs"].get(name, {}).get(program) for name in (one, other)]
    if None in found:
        return None
    return found[0]["compiled"] == found[1]["compiled"]


def verdict(results: Results, measure: str, one: str, other: str) -> Verdict | None:
    """Compares the spreads; None if one was not measured. Does not compare the products."""
    found = spreads(results["measures"], measure)
    if one not in found or other not in found:
        return None
    pair = {name: found[name] for name in (one, other)}
    low, high = sorted(spread.median for spread in pair.values())
    groups = order(pair, MEASURES[measure].more_is_better)
    factor = high / low if low else float("inf")
    return Verdict(groups[0][0] if len(groups) == 2 else None, factor, (found[one], found[other]))


def claim(results: Results, measure: str, one: str, other: str) -> str:
    """What may be said about two designs: one cell of the table."""
    found = verdict(results, measure, one, other)
    if found is None:
        return NOT_MEASURED
    same = same_products(results, one, other, PROGRAM[measure])
    if not same:
        return "products not counted" if same is None else "products differ"
    if found.first is None:
        return "no order"
    return f"{title(found.first)} by a factor of {found.factor:.2f}"


def section(results: Results) -> str:
    """A table of the plain contestants and one of the tuned ones, without empty rows."""
    parts = []
    for form in (PLAIN, TUNED):
        pairs = [pair for pair in PAIRS if set(pair) <= set(form) & results["measures"].keys()]
        rows = []
        for measure in PROGRAM:
            cells = [claim(results, measure, *pair) for pair in pairs]
            if set(cells) - {NOT_MEASURED}:
                rows.append([MEASURES[measure].title, *cells])
        if rows:
            head = [f"{title(one)} and {title(other)}" for one, other in pairs]
            parts.append(table(["ahead", *head], rows))
    return "\n".join(parts or ["No two of them took part in this run.\n"])


def tuning(results: Results, measure: str = "step") -> dict[str, Verdict]:
    """For each design, compares its tuned form with its plain form, in this order."""
    found = {}
    for plain, tuned in zip(PLAIN, TUNED, strict=True):
        one = verdict(results, measure, tuned, plain)
        if one is not None:
            found[CONTESTANTS[plain].design] = one
    return found
