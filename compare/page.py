"""docs/comparison.md, from the results of a run and from nothing else."""

from typing import Any

from compare import equality
from compare.contestants import CONTESTANTS
from compare.figures import MEASURES, order, show_order, show_spread, spreads, title
from compare.reading import reading

Results = dict[str, Any]
PAGE, JSON, MEASURED, LOSSES = (
    "comparison.md",
    "comparison.json",
    "comparison.png",
    "comparison-losses.png",
)
DESIGNS = {"linen": "Linen", "nnx": "NNX", "torch": "PyTorch"}


def page(results: Results) -> str:
    """The whole page."""
    return "\n".join(
        [
            _head(results),
            _equal(results),
            _measured(results),
            _fair(results),
            _ease(results),
            reading(results),
        ]
    )


def _head(results: Results) -> str:
    machine, config = results["machine"], results["config"]
    present = [name for name in CONTESTANTS if name in results["measures"]]
    rows = "\n".join(
        f"| {title(name)} | {_link(CONTESTANTS[name].file)} | {_versions(results, name)} "
        f"| {results['processes'][name]['threads']} |"
        for name in present
    )
    model = (
        f"{results['parameters']:,} parameters, {config['n_layer']} layers of {config['n_embd']}, "
        f"{config['n_head']} heads, {config['dtype']}, dropout {config['dropout']:g}"
    )
    left_out = "".join(f"\n\n{line}" for line in results["missing"])
    return f"""# Functional against object-oriented, by experiment

The same GPT, written four ways and run side by side. Every number below, and every sentence that
depends on one, was written by `{results["command"]}` in {results["minutes"]:.1f} minutes.

| | |
|---|---|
| machine | {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]:.0f} GB |
| system | {machine["system"]}, Python {machine["python"]} |
| model | preset `{results["preset"]}`: {model} |
| batch | {results["batch"][0]} sequences of {results["batch"][1]} tokens of tiny Shakespeare |

| | written in | versions | threads |
|---|---|---|--:|
{rows}

Linen and plain JAX are the functional side: values in, values out. NNX and PyTorch are the side of
objects that hold their state. Linen and NNX run on the same compiler, but Linen trains with this
project's own products and attention, so that more than the design differs between them (see below);
between JAX and PyTorch everything differs.{left_out}
"""


def _link(file: str) -> str:
    return f"[compare/{file}](../compare/{file})"


def _versions(results: Results, name: str) -> str:
    found = results["processes"][name]["versions"]
    shown = ("jax", "flax", "torch") if name in ("linen", "nnx") else ("jax", "torch")
    return ", ".join(f"{package} {found[package]}" for package in shown if package in found)


def _equal(results: Results) -> str:
    proofs, limits = results["equality"], equality.TOLERANCES
    rows = []
    for name, proof in proofs.items():
        if name == equality.YARDSTICK:
            rows.append(f"| *{name}* | | | {proof['losses']:.1e} | | |")
        else:
            tokens = f"{proof['same_tokens']} of {proof['tokens']}"
            rows.append(
                f"| {title(name)} | {proof['logits']:.1e} | {proof['gradient']:.1e} "
                f"| {proof['losses']:.1e} | {tokens} | {'yes' if proof['agrees'] else '**no**'} |"
            )
    steps = len(proofs[equality.REFERENCE]["curve"])
    curve = proofs[equality.REFERENCE]["curve"]
    table, rate = "\n".join(rows), f"{results['proof_rate']:g}"
    return f"""## Are they equal?

One set of weights goes into all of them. They train {steps} steps on the same batches, from a loss
of {curve[0]:.3f} to {curve[-1]:.3f}; then all get the weights that this project's training ended
with, and logits, gradients and greedy tokens are compared there.

| | logits | gradient | losses over {steps} steps | same greedy tokens | agrees |
|---|---|---|---|---|---|
| *allowed* | {limits["logits"]:.0e} | {limits["gradient"]:.0e} | {limits["losses"]:.0e} | all | |
{table}

Logits: the largest difference from this project's, relative to the largest logit. Gradient: the
worst parameter's difference, relative to it, both as Euclidean norms. Losses: the largest
difference of any step, in nats. The last row is this project against itself, its first weights
moved by {equality.ROUNDING:.0e} of their size: what rounding alone does. At a high learning rate
that row grows past any tolerance, because ReLU has kinks and AdamW divides by gradients that are
nearly zero. So the proof has GELU in ReLU's place, warms up for {equality.WARMUP} steps or more to
a rate of at most {rate}, and starts from weights of N(0, {equality.INIT_STD}) where the preset's
are smaller. The tests hold ReLU's logits and gradients to the same tolerances on a small model.

![Losses of all, and how far they are from this project's](comparison-losses.png)
"""


def _measured(results: Results) -> str:
    measured = results["measures"]
    names = [name for name in CONTESTANTS if name in measured]
    lines = []
    for key, measure in MEASURES.items():
        found = spreads(measured, key)
        cells = " | ".join(show_spread(found[n]) if n in found else "" for n in names)
        ranking = show_order(order(found, measure.more_is_better))
        lines.append(f"| {measure.title}, {measure.unit} | {cells} | {ranking} |")
    head = " | ".join(title(name) for name in names)
    rules = "|".join(["---"] * (len(names) + 2))
    table = "\n".join(lines)
    amounts, (prompt, new) = results["amounts"], results["sample"]
    return f"""## What was measured

The median, and in brackets the spread: the middle half of the measurements, or all of them where
there were fewer than five. The last column is an order from best to worst, made only where spreads
do not overlap; `=` joins those whose spreads do.

| | {head} | order |
|{rules}|
{table}

![The same as a picture](comparison.png)

Each contestant ran in a process of its own, {amounts["starts"]} starts of each (one of the compiled
PyTorch). Then they took turns for {amounts["rounds"]} rounds: {amounts["steps"]} training steps a
turn, then a first token and a sample of {new} tokens after a prompt of {prompt}, then a save and a
load. The compiled PyTorch samples and saves with the same code as the other, so it was not
measured there.
"""


def _fair(results: Results) -> str:
    threads = sorted({about["threads"] for about in results["processes"].values()})
    same = f"{threads[0]} threads each" if len(threads) == 1 else f"threads as listed ({threads})"
    return f"""## What was done to be fair

- **The same work**: the same weights, ids, AdamW (decay of matrices only where the preset says so),
  clipping, warm-up and schedule; float32 for parameters, moments, softmax and loss on all sides,
  and the same greedy decoding. The table above shows that it is the same. Where the preset has
  Muon, all have AdamW in its place: Muon's iterations are this project's own code, and would add
  the same work to every JAX contestant.
- **The same machine at the same time**: {same}, one process at work and the others waiting,
  in an order that changes with each round. Batches are in memory before the clock starts. Each
  turn ends when its last loss is known.
- **Compile and start-up apart**: steps are timed after three have run. No contestant finds a
  compile of an earlier run on the disk.
- **PyTorch** has `scaled_dot_product_attention` (its own fused kernel), one projection for query,
  key and value, fused AdamW, `zero_grad(set_to_none=True)`, `inference_mode` and a cache of keys
  and values for sampling; and once more `torch.compile`. Its process imports no JAX.
- **NNX** and **plain JAX** train with plain einsums and plain attention. **Linen** does not, see
  below, so a difference between them is not that of two designs alone.
- **NNX** has `nnx.jit` with donated model and optimizer, driven through `nnx.cached_partial` as its
  guide advises, `nnx.Optimizer` with `wrt`, and a cache for sampling inside one compiled loop.
- **Linen** is this project's own code: `gptjax.generate` with its cache, and the products and the
  attention that `train.py` has on a CPU. One update a dispatch like the others; `train.py` puts
  many into one, which is faster than what is shown here.
- **Plain JAX** has no cache: each token is a forward of its whole window.
- **Checkpoints** hold weights, moments and step. This project writes with Orbax, reads every file
  again for its sha256, and flushes to the disk; NNX writes with Orbax; PyTorch one safetensors file
  (`torch.save` is a pickle, and there is none here); plain JAX one `.npz`. What a save is worth is
  not the same, and its time is not either.
- **Parameters** in JAX have a kernel a head, in PyTorch one for all: each as its library is fast.
"""


def _ease(results: Results) -> str:
    parts = [
        """## What each design makes easy or hard

Short programs, run on a model of two blocks; "lines" are what the program itself takes, and the
link shows all of them side by side. Times are medians and spreads as above, of the program alone.
"""
    ]
    for topic, found in results["ease"].items():
        rows = "\n".join(
            f"| {DESIGNS[design]} | {one['lines']} | {one['says']} |"
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
