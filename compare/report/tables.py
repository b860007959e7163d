"""The page's tables of numbers: equality, the measures, the host's work, the programs."""

from typing import Any

from compare.contestants import CONTESTANTS
from compare.figures import (
    MEASURES,
    NOT_MEASURED,
    Spread,
    order,
    show,
    show_order,
    show_spread,
    spread,
    spreads,
    table,
    title,
)
from compare.measuring import equality, host, sameness

Results = dict[str, Any]
# The host's work: the rows of both tables.
HOST = {
    "step": "a step, one per dispatch, ms",
    "many": "a step, several per dispatch, ms",
    "call": "calling a step, until the call returns, ms",
    "flatten": "flattening and rebuilding the state, ms",
    "trace": "trace the step, ms",
    "lower": "lower the step, ms",
    "compile": "compile the step, ms",
    "hlo": "characters of the program before compilation",
    "instructions": "lines of the compiled program",
}
COUNTS = ("hlo", "instructions")
PROGRAMS = {"training": "training step", "sampling": "sampling with a cache"}
# A primitive with a smaller share of a program's elements than this is not listed.
NAMED = 0.005


def present(results: Results) -> list[str]:
    """The contestants that were measured."""
    return [name for name in CONTESTANTS if name in results["measures"]]


def equal(results: Results) -> str:
    """How far each contestant's outputs are from Linen's, and the tolerances."""
    limits = [f"{equality.TOLERANCES[key]:.0e}" for key in ("logits", "gradient", "losses")]
    rows = [["*allowed*", *limits, "all", ""]]
    for name, proof in results["equality"].items():
        if name == equality.YARDSTICK:
            rows.append([f"*{name}*", "", "", f"{proof['losses']:.1e}", "", ""])
            continue
        far = [f"{proof[key]:.1e}" for key in ("logits", "gradient", "losses")]
        tokens = f"{proof['same_tokens']} of {proof['tokens']}" if proof["tokens"] else "as plain"
        rows.append([title(name), *far, tokens, "yes" if proof["agrees"] else "**no**"])
    steps = len(results["equality"][equality.REFERENCE]["curve"])
    head = ["logits", "gradient", f"losses over {steps} steps", "same greedy tokens", "agrees"]
    return table(["", *head], rows)


def measured(results: Results) -> str:
    """A row for each measure, a column for each contestant, and the order."""
    names, rows = present(results), []
    for key, measure in MEASURES.items():
        found = spreads(results["measures"], key)
        cells = [show_spread(found[n]) if n in found else NOT_MEASURED for n in names]
        ranking = show_order(order(found, measure.more_is_better))
        if found:
            rows.append([f"{measure.title}, {measure.unit}", *cells, ranking])
    return table(["", *map(title, names), "order"], rows)


def medians(results: Results) -> str:
    """The same measures, but only medians."""
    names, rows = present(results), []
    for key, measure in MEASURES.items():
        found = spreads(results["measures"], key)
        cells = [show(found[n].median) if n in found else NOT_MEASURED for n in names]
        if found:
            rows.append([f"{measure.title}, {measure.unit}", *cells])
    return table(["", *map(title, names)], rows)


def host_spreads(results: Results, which: str, measure: str) -> dict[str, Spread]:
    """Spreads by contestant, in milliseconds; for COUNTS, the counts themselves."""
    scale = 1.0 if measure in COUNTS else 1e3
    found = results["host"].get(which, {})
    return {
        name: spread(found[name][measure], scale)
        for name in CONTESTANTS
        if measure in found.get(name, {})
    }


def hosts(results: Results) -> str:
    """The host's work: a table for the tiny model, and one for the preset."""
    parts = []
    for which, model in {host.TINY: "tiny model", host.PRESET: f"`{results['preset']}`"}.items():
        names = [n for n in CONTESTANTS if n in results["host"].get(which, {})]
        rows = []
        for key, what in HOST.items():
            found = host_spreads(results, which, key)
            if found:
                cells = [show_spread(found[n]) if n in found else NOT_MEASURED for n in names]
                rows.append([what, *cells, show_order(order(found))])
        if rows:
            parts.append(table([model, *map(title, names), "order"], rows))
    return "\n".join(parts or ["This run did not measure the host's work.\n"])


def ways(results: Results) -> str:
    """NNX's ways to call a step, on the tiny model."""
    found = results["host"].get(host.TINY, {}).get("nnx", {})
    rows = []
    for key in ("step", *(key for key in found if key not in HOST)):
        one = host_spreads(results, host.TINY, key).get("nnx")
        if one is not None:
            rows.append(["`nnx.cached_partial`" if key == "step" else f"`{key}`", show_spread(one)])
    return table(["how NNX's step is called", "ms"], rows) if rows else "NNX was not measured.\n"


def programs(results: Results) -> str:
    """Products and FLOPs of each program, compared with the first one of the same form."""
    rows = []
    for program, what in PROGRAMS.items():
        for name, found in results["programs"].items():
            if program in found:
                counts = [
                    text
                    for side in ("traced", "compiled")
                    for text in (
                        f"{sameness.count(found[program][side]):,}",
                        show(sameness.flops(found[program][side]) / 1e6),
                    )
                ]
                same = _same(results, name, program)
                rows.append([what, title(name), *counts, same])
    if not rows:
        return "This run did not count any program.\n"
    head = ["products written", "MFLOP", "products compiled", "MFLOP", "the same?"]
    return table(["program", "", *head], rows)


def _reference(results: Results, name: str, program: str) -> str:
    """The first contestant of the same form that has the program: plain or tuned."""
    tuned, found = CONTESTANTS[name].tuned, results["programs"]
    return next(n for n in found if CONTESTANTS[n].tuned == tuned and program in found[n])


def _same(results: Results, name: str, program: str) -> str:
    reference = _reference(results, name, program)
    if reference == name:
        return "(reference)"
    one, other = (results["programs"][n][program]["compiled"] for n in (name, reference))
    apart = sameness.difference(one, other)
    if not apart:
        return "yes"
    return "**no**: " + ", ".join(f"{change:+d} of {sizes}" for sizes, change in apart.items())


def operations(results: Results) -> str:
    """The other work of each program, as traced, and how it differs from the reference's."""
    rows = []
    for program, what in PROGRAMS.items():
        for name, found in results["programs"].items():
            if program not in found:
                continue
            mine = found[program]["operations"]
            total, reference = sum(mine.values()), _reference(results, name, program)
            apart = sameness.difference(mine, results["programs"][reference][program]["operations"])
            large = sorted(
                ((op, n) for op, n in apart.items() if abs(n) >= NAMED * total),
                key=lambda item: -abs(item[1]),
            )
            shown = ", ".join(
                f"{op} {'+' if n > 0 else '-'}{show(abs(n) / 1e6)}" for op, n in large
            )
            differs = "(reference)" if reference == name else shown or "nothing"
            rows.append([what, title(name), show(total / 1e6), differs])
    if not rows:
        return ""
    return table(["program", "", "million elements", "against the reference, millions"], rows)
