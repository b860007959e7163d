"""The five takeaways of the page, each made from the run's own numbers.

If something was not measured, the sentence says that and claims nothing.
"""

from typing import Any

from compare.contestants import CONTESTANTS
from compare.figures import (
    join,
    order,
    show,
    show_order,
    show_spread,
    spread,
    spreads,
    title,
)
from compare.measuring import host
from compare.report import designs
from compare.report.tables import host_spreads

Results = dict[str, Any]


def takeaways(results: Results) -> str:
    """Returns the page's opening, a numbered list."""
    sentences = (
        _design(results),
        _host(results),
        _tuning(results),
        _pytorch(results),
        _programs(results),
    )
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1)) + "\n"


def _design(results: Results) -> str:
    """Linen against NNX, plain and tuned."""
    head, parts = "**Linen or NNX, with the same arithmetic.**", []
    for one, other in (("linen", "nnx"), ("linen-tuned", "nnx-tuned")):
        found = designs.verdict(results, "step", one, other)
        if found is None:
            continue
        times = " and ".join(
            f"{show_spread(each)} ms in {title(name)}"
            for name, each in zip((one, other), found.spreads, strict=True)
        )
        same = designs.same_products(results, one, other, "training")
        if not same:
            why = "were not counted" if same is None else "differ"
            told = f"their products {why}, so this says nothing about the designs"
        elif found.first is None:
            told = "the order is unclear"
        else:
            told = f"{title(found.first)} is faster by a factor of {found.factor:.2f}"
        parts.append(f"A training step takes {times}: {told}.")
    return " ".join([head, *(parts or ["This run did not measure both of them."])])


def _host(results: Results) -> str:
    """What calling a step costs on the host, with the tiny model and with the preset."""
    head = "**What a design costs on the host.**"
    tiny = host_spreads(results, host.TINY, "step")
    tiny = {name: each for name, each in tiny.items() if name in designs.PLAIN}
    if len(tiny) < 2:
        return f"{head} This run did not measure two designs on JAX."
    times = join([f"{show(each.median)} ms in {title(name)}" for name, each in tiny.items()])
    text = f"{head} A step with almost nothing to compute takes {times} ({_told(order(tiny))})"
    many = host_spreads(results, host.TINY, "many")
    many = {name: each for name, each in many.items() if name in tiny}
    if len(many) > 1:
        low, high = (f(each.median for each in many.values()) for f in (min, max))
        text += f", and {_span(low, high)} ms with several steps per dispatch"
    preset = spreads(results["measures"], "step")
    slowest = max(tiny, key=lambda name: tiny[name].median)
    if slowest in preset and len(order(tiny)) > 1:
        apart = tiny[slowest].median - min(each.median for each in tiny.values())
        share = show(100 * apart / preset[slowest].median)
        text += f". The largest difference is {share} % of {title(slowest)}'s step at "
        text += f"`{results['preset']}`"
    return text + "."


def _told(groups: list[list[str]]) -> str:
    return f"the order is {show_order(groups)}" if len(groups) > 1 else "the order is unclear"


def _span(low: float, high: float) -> str:
    return f"{show(low)} to {show(high)}"


def _tuning(results: Results) -> str:
    """How much the injected products gain, compared with the choice of a design."""
    head = "**The arithmetic or the design?**"
    found = designs.tuning(results)
    if not found:
        return f"{head} This run did not measure any design both plain and tuned."
    parts = []
    for design, one in found.items():
        if one.first is None:
            parts.append(f"{title(design)}: unclear")
        else:
            way = "faster" if CONTESTANTS[one.first].tuned else "slower"
            parts.append(f"{title(design)}: {one.factor:.2f} times {way}")
    text = f"{head} Injecting the same CPU products and attention changes the time of a training "
    text += f"step by these factors. {'; '.join(parts)}"
    verdicts = [
        found
        for pair in designs.PAIRS
        if designs.same_products(results, *pair, "training")
        and (found := designs.verdict(results, "step", *pair))
    ]
    factors = [one.factor for one in verdicts if one.first is not None]
    if factors:
        text += ". Between two designs with the same products, the largest factor is "
        text += f"{max(factors):.2f}"
    elif verdicts:
        text += ". Between two designs with the same products, the order is always unclear"
    return text + "."


def _pytorch(results: Results) -> str:
    """PyTorch, where library and compiler differ too."""
    head = "**PyTorch is another library with another compiler.**"
    found = spreads(results["measures"], "step")
    if "torch" not in found or len(found) < 2:
        return f"{head} This run did not measure PyTorch beside JAX."
    text = f"{head} So its numbers say nothing about designs. An eager training step takes "
    text += f"{show_spread(found['torch'])} ms; {_told(order(found))}"
    cold = spreads(results["measures"], "first_token_cold")
    others = [each.median for name, each in cold.items() if CONTESTANTS[name].on_jax]
    if "torch" in cold and others:
        text += f". Its first token takes {show(cold['torch'].median)} ms; on JAX, which compiles "
        text += f"first, {_span(min(others), max(others))} ms"
    return text + "."


def _programs(results: Results) -> str:
    """What the short programs found about hidden state, and about seeds."""
    head, ease, parts = "**What a design makes easy.**", results["ease"], []
    hidden = ease.get("hidden", {}).get("designs", {})
    if hidden:
        silent = {
            design: sum(fate == "happens silently" for fate in one["facts"].values())
            for design, one in hidden.items()
        }
        shown = join([f"{count} in {title(design)}" for design, count in silent.items()])
        parts.append(f"Of three accidents with hidden state, these happen silently: {shown}.")
    seeds = ease.get("seeds", {}).get("designs", {})
    if seeds:
        shown = join(
            [
                f"{one['lines']} lines and {show(spread(one['facts']['together_ms']).median)} ms "
                f"in {title(design)}"
                for design, one in seeds.items()
            ]
        )
        parts.append(f"Training 8 seeds at once takes {shown}.")
    return " ".join([head, *(parts or ["This run did not try the short programs."])])
