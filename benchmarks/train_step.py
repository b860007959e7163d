"""Compares time, memory and arithmetic of a training step with the PyTorch twin.

python benchmarks/train_step.py                    about 15 minutes on 2 cores
python benchmarks/train_step.py --shapes laptop    one shape
python benchmarks/train_step.py --quick            toy shapes, only to check that it works

Both train the same models with the same batch sizes, each in its own process, taking turns. The
best variant of each side counts. Writes docs/train_step.json and prints its tables.
"""

import argparse
import statistics
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

from benchmarks.arithmetic import matmul_rate  # noqa: E402
from benchmarks.steps import Entry, measure  # noqa: E402
from compare.measuring.machine import versions  # noqa: E402
from gptjax.backends.flops import terms, train_flops  # noqa: E402
from gptjax.config import RunConfig  # noqa: E402
from gptjax.files import write_json  # noqa: E402
from gptjax.presets import PRESETS  # noqa: E402

BASE = PRESETS["shakespeare"]
SHAPES = {
    # nanoGPT's README, "I only have a macbook".
    "laptop": BASE.replace(
        n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=12, dropout=0.0
    ),
    "shakespeare": BASE,
    "shakespeare, no dropout": BASE.replace(dropout=0.0),
    "GPT-2 124M": BASE.replace(
        vocab_size=50257,
        n_layer=12,
        n_head=12,
        n_embd=768,
        block_size=1024,
        batch_size=1,
        dropout=0.0,
        activation="gelu_tanh",
        bias=True,
        qkv_bias=True,
        ln_bias=True,
    ),
}
TOY = {
    "toy": BASE.replace(n_layer=1, n_head=2, n_embd=16, block_size=16, batch_size=2),
}
LIBRARIES = ("gptjax", "torch", "torch-compile")
DTYPES = ("float32", "bfloat16")


def main() -> int:
    """Returns exit status 0, whatever the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of training in a turn")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    shapes = TOY if args.quick else {name: SHAPES[name] for name in args.shapes}
    turns, seconds = (2, 0.1) if args.quick else (args.turns, args.seconds)
    libraries = LIBRARIES if find_spec("torch") else LIBRARIES[:1]
    if len(libraries) == 1:
        tell("PyTorch is left out: torch is not installed (pip install -e '.[compare]')")
    if args.quick:
        libraries = libraries[:2]  # compiling takes half a minute
    entries = [Entry(library, dtype) for dtype in args.dtypes for library in libraries]
    size = 256 if args.quick else 2048
    results: dict[str, Any] = {
        "versions": versions(),
        "matmul_flops": {dtype: matmul_rate(dtype, size) for dtype in DTYPES},
        "shapes": {},
    }
    for name, run_config in shapes.items():
        tell(f"== {name}")
        rows = measure(run_config, entries, turns=turns, seconds=seconds, tell=tell)
        results["shapes"][name] = {"config": run_config.to_dict(), "rows": rows}
        print(table(name, run_config, rows, results["matmul_flops"]), flush=True)
    if not args.quick:
        write_json(args.out / "train_step.json", results)
    return 0


def tell(message: str) -> None:
    """Prints progress, separately from the tables."""
    print(message, file=sys.stderr, flush=True)


def table(
    name: str, run_config: RunConfig, rows: list[dict[str, Any]], matmul: dict[str, float]
) -> str:
    """A shape's table, and the comparison of each side's best."""
    model = run_config.model
    tokens = run_config.train.batch_size * model.block_size
    flops = train_flops(model)
    lines = [
        f"### {name}",
        "",
        f"{model.n_layer} layers, {model.n_head} heads, {model.n_embd} wide, block "
        f"{model.block_size}, batch {run_config.train.batch_size}, dropout {model.dropout}: "
        f"{flops / 1e6:,.1f} million operations a token.",
        "",
        "| | ms a step, median | range | tokens/s | GFLOP/s | of the dtype's product | peak MB "
        "| compile |",
        "|---|---|---|---|---|---|---|---|",
    ]
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for row in rows:
        if not row["step"]:
            lines.append(f"| {row['name']} | {row['why']} | | | | | | |")
            continue
        step = statistics.median(row["step"])
        rate, done = tokens / step, flops * tokens / step
        lines.append(
            f"| {row['name']} | {1000 * step:,.1f} "
            f"| {1000 * min(row['step']):,.1f} to {1000 * max(row['step']):,.1f} "
            f"| {rate:,.0f} | {done / 1e9:,.0f} | {done / matmul[row['dtype']]:.0%} "
            f"| {row['memory']:,.0f} | {row['compile']:.1f} s |"
        )
        side = row["name"].split(",")[0]
        if side not in best or rate > best[side][0]:
            best[side] = (rate, row)
    if len(best) == 2:
        (ours, mine), (theirs, other) = best["gptjax"], best["PyTorch"]
        lines += [
            "",
            f"{mine['name']} makes {ours / theirs:.2f} times the tokens/s of {other['name']}, at "
            f"{mine['memory'] / other['memory']:.2f} times its peak memory.",
        ]
    return "\n".join([*lines, ""])


def arithmetic(run_config: RunConfig) -> str:
    """The cost of a token's forward pass, term by term."""
    lines = ["| product | operations a token, forward |", "|---|---|"]
    lines += [f"| {term.what} | {term.forward:,} |" for term in terms(run_config.model)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
