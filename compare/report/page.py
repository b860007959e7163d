"""Makes docs/comparison.md from the results of a run, and from nothing else."""

from typing import Any

from compare import ease
from compare.contestants import CONTESTANTS
from compare.figures import NOT_MEASURED, title
from compare.measuring import equality
from compare.report import designs, fairness, libraries, sides, tables
from compare.report.takeaways import takeaways

Results = dict[str, Any]
PAGE, JSON, OTHER_JSON, MEASURED, LOSSES = (
    "comparison.md",
    "comparison.json",
    "comparison-newer.json",
    "comparison.png",
    "comparison-losses.png",
)


def page(results: Results, other: Results | None = None) -> str:
    """Returns the whole page.

    Args:
        other: the results of a run with another Python and other releases of the libraries.
    """
    return "\n".join(
        [
            _head(results),
            _equal(results),
            _same(results),
            _measured(results),
            _host(results),
            _pairs(results),
            *([_other(other)] if other else []),
            fairness.section(results),
            _ease(results),
            libraries.section(),
            sides.section(results),
        ]
    )


def _head(results: Results) -> str:
    machine, model = results["machine"], results["model"]
    rows = "\n".join(
        f"| {title(name)} | {_side(name)} | {_link(CONTESTANTS[name].file)} "
        f"| {_versions(results, name)} | {results['processes'][name]['threads']} |"
        for name in tables.present(results)
    )
    described = f"{results['parameters']:,} parameters: layers {model['n_layer']}, width "
    described += f"{model['n_embd']}, heads {model['n_head']}, {model['dtype']}, dropout "
    described += f"{model['dropout']:g}"
    left_out = "".join(f"\n\n{line}" for line in results["missing"])
    return f"""# Functional against object-oriented, by experiment

The same GPT, implemented four ways and run side by side. `{results["command"]}` wrote this page in
{results["minutes"]:.1f} minutes: every number, and every sentence that depends on a number.

Five takeaways:

{takeaways(results)}
| | |
|---|---|
| machine | {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]:.0f} GB |
| system | {machine["system"]}, Python {machine["python"]} |
| model | preset `{results["preset"]}`: {described} |
| batch | {results["batch"][0]} sequences of {results["batch"][1]} tokens of tiny Shakespeare |
| optimizer | AdamW, with the preset's schedule; see "What was done to be fair" |

| | design | written in | versions | threads |
|---|---|---|---|--:|
{rows}

A functional design maps values to values. Objects hold their state and change it. Linen, NNX and
plain JAX use the same compiler, and are written with the same products and the same attention. The
*tuned* contestants are the same three with this project's CPU products and attention injected
([compare/tuned.py](../compare/tuned.py)), which `train.py` uses on a CPU. So two plain contestants
differ in design and library, and so do two tuned ones. A plain and a tuned one differ in
arithmetic. JAX and PyTorch differ in everything.{left_out}
"""


def _side(name: str) -> str:
    return "functional" if CONTESTANTS[name].functional else "objects"


def _link(file: str) -> str:
    return f"[compare/{file}](../compare/{file})"


def _versions(results: Results, name: str) -> str:
    found = results["processes"][name]["versions"]
    has_flax = CONTESTANTS[name].design in ("linen", "nnx")
    shown = ("jax", "flax", "torch") if has_flax else ("jax", "torch")
    return ", ".join(f"{package} {found[package]}" for package in shown if package in found)


def _equal(results: Results) -> str:
    curve, rate = results["equality"][equality.REFERENCE]["curve"], f"{results['proof_rate']:g}"
    return f"""## Are they equal?

All contestants start from one set of weights and train {len(curve)} steps on the same batches, from
a loss of {curve[0]:.3f} to {curve[-1]:.3f}. Then all get Linen's trained weights, and this page
compares their logits, gradients and greedy tokens, with and without a cache.

{tables.equal(results)}
Logits: the largest difference from Linen's, relative to the largest logit. Gradient: the largest
relative difference of one parameter's gradient, in Euclidean norms. Losses: the largest difference
of a step, in nats. The last row is Linen against itself, with its initial weights moved by
{equality.ROUNDING:.0e} of their size: it shows the effect of rounding alone. With a high learning
rate, this effect exceeds any tolerance, because ReLU has kinks and AdamW divides by gradients that
are nearly zero. So this proof uses GELU, warms up for at least {equality.WARMUP} steps to a
learning rate of at most {rate}, and starts from weights of N(0, {equality.INIT_STD}) if the
preset's are smaller. The tests check ReLU's logits and gradients with the same tolerances on a
small model.

![The losses of all, and their distance from Linen's](comparison-losses.png)
"""


def _same(results: Results) -> str:
    return f"""## Is it the same arithmetic?

The matrix products of each program are counted twice: as written (in the jaxpr) and as compiled (in
the optimized HLO). "The same" means that the compiled programs have the same products, one for one:
the same number of matrices, rows and columns, and sums of the same length. The count of the written
products includes a loop's body once per iteration, and the count of the compiled ones only once.

{tables.programs(results)}
Products are most of the work, but not all of it. The next table shows the rest, as written: how
many array elements the other operations handle, and which operations handle more (+) or fewer (-)
than the reference's. It omits operations with less than {tables.NAMED:.1%} of a program's elements.
Linen's step computes the gradient norm a second time, for its metrics, and its cache has masks for
rows of different lengths. Linen and NNX use Flax's LayerNorm and Optax's AdamW; plain JAX's are
written by hand.

{tables.operations(results)}"""


def _measured(results: Results) -> str:
    amounts, (prompt, new) = results["amounts"], results["sample"]
    return f"""## What was measured

Each cell is the median, with the spread in brackets: the middle half of the measurements, or their
whole range if there were fewer than five. The last column is the order from best to worst. Only
contestants whose spreads do not overlap are put in an order; `=` joins the others. A contestant
that was measured only once has no place in the order.

{tables.measured(results)}
![The measurements as a picture](comparison.png)

Each contestant ran in its own process. The number of processes started for each plain contestant is
{amounts["starts"]}; for the tuned ones and the compiled PyTorch it is 1, because they start with
the same code. Then they took turns for {amounts["rounds"]} rounds: {amounts["steps"]} training
steps, as many again in one dispatch, a first token, samples of {new} tokens after a prompt of
{prompt} (one sequence at a time), a save and a load. "{NOT_MEASURED}" means that another contestant
does the same with the same code, or that the measure does not apply: in PyTorch, every operation is
a dispatch of its own.
"""


def _host(results: Results) -> str:
    amounts = results["amounts"]
    return f"""## What a design costs on the host

Before a compiled step runs, Python flattens the state into arrays, and afterwards it builds the
state again. Before the first step, the step must be traced and compiled. The tiny model has the
preset's number of layers, and so as many arrays and objects, each as small as possible: its step
takes about as long as this work does. PyTorch's eager step has no such parts, because Python calls
each of its operations. NNX flattens its objects with `nnx.split` and builds them with `nnx.merge`;
its step is called through `nnx.cached_partial`, which does that only once. The tiny model was
measured in {amounts["host_rounds"]} rounds of {amounts["host_steps"]} steps.

{tables.hosts(results)}
NNX has several ways to call a step, which its performance guide compares. Their times with the tiny
model:

{tables.ways(results)}"""


def _pairs(results: Results) -> str:
    lines = ", ".join(f"{title(d)} {count}" for d, count in results["injection"].items())
    return f"""## Design against design

These contestants share a compiler and their products, so they differ only in the design and its
library. This table omits start-up, memory and checkpoints, where the libraries differ as much as
the designs. Linen and NNX get LayerNorm and the optimizer from the same libraries. In plain JAX,
both are written by hand, so its columns compare more than the design.

{designs.section(results)}
How hard is it to inject the tuned products? These are the lines of {_link("tuned.py")}: {lines}.
"""


def _other(other: Results) -> str:
    machine = other["machine"]
    versions = sorted({_versions(other, name) for name in tables.present(other)})
    return f"""## On another release

These are the medians of the same measurements with Python {machine["python"]} and
{"; ".join(versions)}. The machine is {machine["cpu"]}, {machine["cores"]} cores.

{tables.medians(other)}"""


def _ease(results: Results) -> str:
    parts = [
        f"""## What each design makes easy or hard

These are short programs, run on a model with two blocks. Each link shows the designs side by side.
Times are medians and spreads as above.

{ease.RULE}
"""
    ]
    for topic, found in results["ease"].items():
        rows = "\n".join(
            f"| {title(design)} | {one['lines']} | {one['says']} |"
            for design, one in found["designs"].items()
        )
        parts.append(
            f"""**{found["question"]}** {_link(f"ease/{topic}.py")}

| | lines | what came out |
|---|--:|---|
{rows}
"""
        )
    return "\n".join(parts)
