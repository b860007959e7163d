"""Compares what one might expect from reading about the designs with the run's numbers.

Because of this, the page is also right on another machine.
"""

from typing import Any

from compare.figures import MEASURES, Spread, order, show_spread, spread, spreads, title
from compare.measuring import host
from compare.report.tables import host_spreads

Results = dict[str, Any]
HELD, FAILED, OPEN = "held", "**failed**", "unclear"
# The expectation, the measure, and the two contestants, of which the first should be ahead.
AHEAD = (
    ("a compiled JAX step is faster than PyTorch's eager one", "step", "linen", "torch"),
    ("with tuned products, it is faster too", "step", "linen-tuned", "torch"),
    ("`torch.compile` makes the step faster", "step", "torch-compile", "torch"),
    ("plain JAX compiles faster than Linen", "compile", "plain", "linen"),
    ("Linen compiles faster than NNX", "compile", "linen", "nnx"),
    ("PyTorch generates its first token sooner than Linen", "first_token_cold", "torch", "linen"),
    ("PyTorch starts sooner than Linen", "start", "torch", "linen"),
    ("PyTorch needs less memory than Linen", "memory", "torch", "linen"),
)


def expectations(results: Results) -> list[list[str]]:
    """Table rows: the expectation, the result, and whether the expectation held."""
    rows = []
    for expected, measure, one, other in AHEAD:
        rows.append(_row(expected, spreads(results["measures"], measure), one, other, measure))
    tiny = host_spreads(results, host.TINY, "step")
    expected = "Linen's values cost the host less than NNX's objects, per call"
    return [*rows, _row(expected, tiny, "linen", "nnx", "step"), *_by_programs(results["ease"])]


def _row(expected: str, found: dict[str, Spread], one: str, other: str, measure: str) -> list[str]:
    if one not in found or other not in found:
        return [expected, "one of the two was not measured", OPEN]
    unit = MEASURES[measure].unit
    shown = " against ".join(f"{title(n)} {show_spread(found[n])} {unit}" for n in (one, other))
    return [expected, shown, _held(found[one], found[other])]


def _held(less: Spread, more: Spread) -> str:
    """Whether the first is less than the second, judged by their spreads."""
    groups = order({"less": less, "more": more})
    return OPEN if len(groups) < 2 else HELD if groups[0] == ["less"] else FAILED


def _by_programs(ease: dict[str, Any]) -> list[list[str]]:
    def fact(topic: str, design: str, name: str) -> Any:
        found = ease.get(topic, {}).get("designs", {}).get(design)
        return found["facts"].get(name) if found else None

    rows = []
    for design in ("linen", "nnx", "torch"):
        times = [fact("seeds", design, name) for name in ("together_ms", "loop_ms")]
        if times[0] is not None:
            together, loop = map(spread, times)
            shown = f"{show_spread(together)} ms together, {show_spread(loop)} ms in turn"
            expected = f"8 seeds at once are faster than 8 in turn in {title(design)}"
            rows.append([expected, shown, _held(together, loop)])
    error = fact("seeds", "torch", "fused_error")
    if error is not None:
        shown = f"for a transposed gradient, one update with rate 0.1 differs by {error:.2g}"
        same = HELD if error < 1e-6 else FAILED
        rows.append(["PyTorch's fused AdamW gives the same result as its plain AdamW", shown, same])
    snapshot = fact("hidden", "linen", "snapshot")
    if snapshot is not None:
        expected = "in the functional design, an old value stays usable"
        shown = f"the state before a step that donates it: {snapshot}"
        rows.append([expected, shown, HELD if snapshot == "cannot happen" else FAILED])
    return rows
