"""The reading at the page's end: which side wins what, and which expectations failed.

An expectation is what somebody who has read about the two designs might say. Each is held against
the run's own figures, so that the page says of another machine what is true there.
"""

from typing import Any, NamedTuple

from compare.figures import MEASURES, Spread, order, show, show_spread, spread, spreads, title

FUNCTIONAL, OBJECTS = ("linen", "plain"), ("nnx", "torch", "torch-compile")
# How much shorter a program must be than the other side's shortest: a line more or less is chance.
SHORTER = 0.8


# What differs between the two besides their designs.
NOT_THE_DESIGN_ALONE = """\
The same compiler, but not the same arithmetic. compare/linen_gpt.py trains with this project's own
products, written gradients and attention in parts, as `train.py` does on a CPU, and samples with
`gptjax.generate`; compare/nnx_gpt.py has plain einsums, plain attention and a cache of its own.
[performance.md](performance.md) has a step of 68 ms without these products and 37 ms with them, at
a shape near this one. So the training figures below do not show what a design costs, and the
sampling figures compare two caches as well as two designs.
"""


class Expectation(NamedTuple):
    """What was expected, and what came; `held` is None where it cannot be told from this run."""

    expected: str
    came: str
    held: bool | None


def reading(results: dict[str, Any]) -> str:
    """The last part of the page."""
    measured, ease = results["measures"], results["ease"]
    wins: dict[str, list[str]] = {"functional": [], "objects": [], "neither": []}
    for key, measure in MEASURES.items():
        if key == "tokens":  # the step's time again
            continue
        found = spreads(measured, key)
        if len(found) > 1:
            wins[_winner(found, measure.more_is_better)].append(_first(key, found))
    for side, sentences in _by_programs(ease).items():
        wins[side] += sentences
    parts = [
        "## A reading\n",
        "A side wins a measure only where every contestant of it is ahead of every one of the "
        "other side, and a program by its length only where it takes a fifth less than the other "
        "side's shortest.\n",
        "### Where functional wins\n",
        _bullets(wins["functional"]),
        "### Where objects win\n",
        _bullets(wins["objects"]),
        "### Where neither does\n",
        _bullets(wins["neither"]),
        "### Linen against NNX\n",
        NOT_THE_DESIGN_ALONE,
        _bullets(_pair(measured, "linen", "nnx")),
        "### What surprised\n",
        "What one might expect of the two designs, and what this run says:\n",
        _expectations(expectations(results)),
    ]
    return "\n".join(parts)


def _bullets(sentences: list[str]) -> str:
    return "\n".join(f"- {sentence}." for sentence in sentences or ["Nothing here"]) + "\n"


def _winner(found: dict[str, Spread], more_is_better: bool) -> str:
    """The side whose contestants are all ahead of all of the other's; else `neither`."""
    groups = order(found, more_is_better)
    ranked = {name for group in groups for name in group}
    for side, names in (("functional", FUNCTIONAL), ("objects", OBJECTS)):
        own = ranked & set(names)
        ahead: set[str] = set()
        for group in groups:
            if own and ahead == own and ahead != ranked:
                return side
            ahead |= set(group)
    return "neither"


def _first(key: str, found: dict[str, Spread]) -> str:
    measure = MEASURES[key]
    groups = order(found, measure.more_is_better)
    if len(groups) < 2:
        groups = [list(found)]
    once = [name for name in found if not any(name in group for group in groups)]
    joined = " = " if len(groups) > 1 else ", "
    values = ", then ".join(
        joined.join(f"{title(name)} {show(found[name].median)}" for name in group)
        for group in groups
    )
    tail = "; no order can be told" if len(groups) < 2 else ""
    for name in once:
        tail += f" ({title(name)}, measured once: {show(found[name].median)})"
    return f"{measure.title[0].upper()}{measure.title[1:]}: {values} {measure.unit}{tail}"


def _pair(measured: dict[str, Any], one: str, other: str) -> list[str]:
    """What two contestants' spreads say of each other."""
    sentences = []
    for key, measure in MEASURES.items():
        found = {name: s for name, s in spreads(measured, key).items() if name in (one, other)}
        if key == "tokens" or len(found) < 2:
            continue
        groups = order(found, measure.more_is_better)
        if len(groups) < 2:
            sentences.append(f"{measure.title}: no order can be told")
            continue
        (best,), (worst,) = groups
        ratio = found[best].median / found[worst].median
        ratio = ratio if measure.more_is_better else 1 / ratio
        sentences.append(f"{measure.title}: {title(best)} is better, by a factor of {ratio:.2f}")
    return sentences or ["One of the two was not measured"]


def _by_programs(ease: dict[str, Any]) -> dict[str, list[str]]:
    """Who wins the short programs, judged by their facts and lengths."""
    wins: dict[str, list[str]] = {"functional": [], "objects": [], "neither": []}

    def facts(topic: str, design: str) -> dict[str, Any]:
        return ease[topic]["designs"][design]["facts"]

    def lines(topic: str) -> dict[str, int]:
        return {design: one["lines"] for design, one in ease[topic]["designs"].items()}

    for topic, what in (
        ("seeds", "Training 8 seeds at once"),
        ("per_example", "Gradients per example"),
        ("resume", "Resuming bit for bit"),
        ("freeze", "Freezing layers"),
        ("activations", "Inspecting activations"),
        ("replace", "Replacing a layer"),
    ):
        if topic not in ease:
            continue
        counted = lines(topic)
        ours, others = counted["linen"], [n for d, n in counted.items() if d != "linen"]
        side = "neither"
        if others and ours <= SHORTER * min(others):
            side = "functional"
        elif others and min(others) <= SHORTER * ours:
            side = "objects"
        shown = ", ".join(f"{_name(design)} {count}" for design, count in counted.items())
        wins[side].append(f"{what}, by the lines that it takes: {shown}")
    if "debugger" in ease:
        seen = {d: facts("debugger", d)["as_it_trains"] for d in ease["debugger"]["designs"]}
        with_numbers = [_name(design) for design, numbers in seen.items() if numbers]
        wins["objects" if with_numbers and "Linen" not in with_numbers else "neither"].append(
            "A breakpoint in the program as it trains shows numbers in: "
            + (", ".join(with_numbers) or "none")
        )
    if "hidden" in ease:
        silent = {
            design: sum(fate == "happens in silence" for fate in facts("hidden", design).values())
            for design in ease["hidden"]["designs"]
        }
        shown = ", ".join(f"{_name(design)} {count}" for design, count in silent.items())
        others = [count for design, count in silent.items() if design != "linen"]
        wins["functional" if others and silent["linen"] < min(others) else "neither"].append(
            f"Accidents of hidden state that happen in silence, of three: {shown}"
        )
    return wins


def expectations(results: dict[str, Any]) -> list[Expectation]:
    """What was expected, held against this run."""
    measured, ease = results["measures"], results["ease"]

    def compare(expected: str, key: str, one: str, other: str) -> Expectation:
        found = {n: s for n, s in spreads(measured, key).items() if n in (one, other)}
        if len(found) < 2:
            return Expectation(expected, "one of the two was not measured", None)
        unit = MEASURES[key].unit
        came = " against ".join(f"{title(n)} {show_spread(found[n])} {unit}" for n in (one, other))
        return Expectation(expected, came, _is_less(found[one], found[other]))

    def fact(topic: str, design: str, name: str) -> Any:
        found = ease.get(topic, {}).get("designs", {}).get(design)
        return found["facts"].get(name) if found else None

    found = [
        compare("a compiled JAX step is faster than PyTorch's", "step", "linen", "torch"),
        compare("Linen, with this project's products, beats NNX's step", "step", "linen", "nnx"),
        compare("plain JAX compiles faster than Linen", "compile", "plain", "linen"),
        compare("`torch.compile` makes the step faster", "step", "torch-compile", "torch"),
        compare("PyTorch has its first token sooner", "first_token_cold", "torch", "linen"),
        compare("PyTorch starts sooner than this project", "start", "torch", "linen"),
        compare("PyTorch needs less memory than this project", "memory", "torch", "linen"),
    ]
    for design in ("linen", "nnx", "torch"):
        together, loop = fact("seeds", design, "together_ms"), fact("seeds", design, "loop_ms")
        if together is not None:
            both = spread(together), spread(loop)
            came = f"{show_spread(both[0])} ms together, {show_spread(both[1])} ms in turn"
            expected = f"8 seeds at once beat a loop over them in {_name(design)}"
            found.append(Expectation(expected, came, _is_less(*both)))
    error = fact("seeds", "torch", "fused_error")
    if error is not None:
        came = f"one update of rate 0.1 differs by {error:.2g} where a gradient is transposed"
        found.append(Expectation("PyTorch's fused AdamW is its AdamW", came, error < 1e-6))
    snapshot = fact("hidden", "linen", "snapshot")
    if snapshot is not None:
        came = f"a snapshot taken before a step that donates: {snapshot}"
        expected = "an old value stays good in the functional design"
        found.append(Expectation(expected, came, snapshot == "cannot happen"))
    return found


def _is_less(one: Spread, other: Spread) -> bool | None:
    """None where the spreads overlap, or where there is none."""
    if min(one.repeats, other.repeats) < 2 or (one.high >= other.low and other.high >= one.low):
        return None
    return one.high < other.low


def _expectations(found: list[Expectation]) -> str:
    words = {None: "cannot be told", True: "held", False: "**failed**"}
    rows = [f"| {one.expected} | {one.came} | {words[one.held]} |" for one in found]
    return "\n".join(["| expected | came | |", "|---|---|---|", *rows]) + "\n"


def _name(design: str) -> str:
    return {"linen": "Linen", "nnx": "NNX", "torch": "PyTorch"}[design]
