"""On a machine with a GPU or TPU: how fast a step is, and how good `shakespeare` becomes, and when.

python benchmarks/accelerator.py                   under eight minutes
python benchmarks/accelerator.py --quick           toy sizes, on whatever JAX finds: that it works

Measures the `shakespeare` preset and GPT-2 124M, bfloat16, against the compiled PyTorch twin where
PyTorch sees the same GPU; then trains `shakespeare` to the end with three seeds, fewer if the time
would not do. Prints Markdown for docs/results.md and writes the same as JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone, nothing installed

from benchmarks import train_step  # noqa: E402
from benchmarks.arithmetic import train_flops  # noqa: E402
from benchmarks.steps import Entry, measure  # noqa: E402
from compare.measuring.machine import versions  # noqa: E402
from gptjax.config import RunConfig  # noqa: E402
from gptjax.files import write_json  # noqa: E402
from gptjax.store.metrics import read_metrics  # noqa: E402

MINUTES = 7.5
# Dense bfloat16 operations per second that the makers' data sheets give, by what the device's name
# contains; the first that fits. SXM versions where there are several.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "V100": 125e12,  # float16: it has no bfloat16
    "TPU v6": 918e12,
    "TPU v5p": 459e12,
    "TPU v5": 197e12,
    "TPU v4": 275e12,
    "TPU v3": 123e12,
    "TPU v2": 45e12,
}
SHAPES = {
    "shakespeare": train_step.SHAPES["shakespeare"],
    "GPT-2 124M": train_step.SHAPES["GPT-2 124M"].replace(batch_size=16),
}
TOY = train_step.TOY
TRAIN = ["--preset", "shakespeare"]
TOY_TRAIN = [
    *"--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4".split(),
    *"--max-iters 4 --eval-interval 2 --eval-iters 2".split(),
]
# In a process of its own: JAX holds the GPU's memory for as long as its process lives.
ASK_RATE = (
    "import json, jax; from benchmarks.arithmetic import matmul_rate; "
    "print(json.dumps([str(jax.devices()[0].device_kind), matmul_rate('bfloat16', {size})]))"
)


def main() -> int:
    """Exit status 0 if all that was begun came to its end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="in all, about")
    parser.add_argument("--data", default="shakespeare", help="as train.py's")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "accelerator.json")
    args = parser.parse_args()
    began = time.monotonic()
    rate = ASK_RATE.format(size=256 if args.quick else 8192)
    said = subprocess.run(
        [sys.executable, "-c", rate], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    kind, matmul = json.loads(said.splitlines()[-1])
    entries = [Entry("gptjax", "bfloat16"), *torch_entries(args.quick)]
    results: dict[str, Any] = {
        "device": kind,
        "versions": versions(),
        "matmul_flops": matmul,
        "peak_flops": peak(kind),
        "shapes": {},
    }
    print(heading(results), flush=True)
    for name, run_config in (TOY if args.quick else SHAPES).items():
        rows = measure(
            run_config,
            entries,
            turns=2 if args.quick else 7,
            seconds=0.1 if args.quick else 1.5,
            tell=train_step.tell,
        )
        results["shapes"][name] = {"config": run_config.to_dict(), "rows": rows}
        print(table(name, run_config, rows, results), flush=True)
    results["runs"] = []
    for seed in range(args.seeds):
        spent = time.monotonic() - began
        longest = max((run["wall"] for run in results["runs"]), default=0.0)
        if spent + longest > 60 * args.minutes:
            train_step.tell(f"seed {seed} and later ones are left out: {args.minutes} minutes")
            break
        results["runs"].append(train(seed, args.data, TOY_TRAIN if args.quick else TRAIN))
        train_step.tell(f"seed {seed}: {results['runs'][-1]}")
    print(quality(results["runs"]), flush=True)
    if not args.quick:
        write_json(args.out, results)
    return 0


def torch_entries(quick: bool) -> list[Entry]:
    """PyTorch's side, if it is installed and sees an accelerator; a toy run is content with a CPU.

    Asked of another process: PyTorch would take some of the GPU's memory for good.
    """
    if find_spec("torch") is None:
        train_step.tell("PyTorch is left out: torch is not installed")
        return []
    ask = "import torch; print(torch.cuda.is_available())"
    said = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True).stdout
    if quick:
        return [Entry("torch", "bfloat16")]
    if said.strip() != "True":
        train_step.tell("PyTorch is left out: it sees no GPU")
        return []
    return [Entry("torch-compile", "bfloat16")]


def peak(kind: str) -> float | None:
    """What the data sheet promises of a device; None if it is not among those known."""
    return next((flops for name, flops in PEAKS.items() if name in kind), None)


def train(seed: int, data: str, flags: list[str]) -> dict[str, Any]:
    """A whole run of train.py: its best and final loss over the whole validation split, and time.

    Returns:
        `best` and `final` in nats per token, `best_step`, `seconds` of training and evaluating by
        the run's own clock, and `wall` seconds of the command.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gptjax-run-") as folder:
        command = [ROOT / "train.py", *flags, "--seed", seed, "--data", data, "--out-dir"]
        subprocess.run(
            [sys.executable, *map(str, command), f"{folder}/run"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        lines = [x for x in read_metrics(Path(folder) / "run" / "metrics.jsonl") if "val_loss" in x]
    best = min(lines, key=lambda line: line["val_loss"])
    return {
        "seed": seed,
        "best": best["val_loss"],
        "best_step": best["step"],
        "final": lines[-1]["val_loss"],
        "seconds": lines[-1]["seconds"],
        "wall": time.monotonic() - began,
    }


def heading(results: dict[str, Any]) -> str:
    """The device, and what it can do."""
    sheet = results["peak_flops"]
    return (
        f"{results['device']}: {results['matmul_flops'] / 1e12:,.1f} TFLOP/s measured of bfloat16 "
        f"matrix products, {f'{sheet / 1e12:,.0f}' if sheet else 'no figure known'} in its data "
        f"sheet. {json.dumps(results['versions'])}\n"
    )


def table(
    name: str, run_config: RunConfig, rows: list[dict[str, Any]], results: dict[str, Any]
) -> str:
    """Steps of one shape; utilisation counts the model's own operations, none done twice."""
    tokens = run_config.train.batch_size * run_config.model.block_size
    flops, sheet = train_flops(run_config.model) * tokens, results["peak_flops"]
    lines = [
        f"### {name}, batch {run_config.train.batch_size} x {run_config.model.block_size}",
        "",
        "| | ms a step, median | range | tokens/s | of the measured product | of the data sheet "
        "| peak MB | first step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row["step"]:
            lines.append(f"| {row['name']} | {row['why']} | | | | | | |")
            continue
        step = statistics.median(row["step"])
        lines.append(
            f"| {row['name']} | {1000 * step:,.2f} "
            f"| {1000 * min(row['step']):,.2f} to {1000 * max(row['step']):,.2f} "
            f"| {tokens / step:,.0f} | {flops / step / results['matmul_flops']:.1%} "
            f"| {f'{flops / step / sheet:.1%}' if sheet else ''} "
            f"| {row['memory']:,.0f} | {row['compile']:.1f} s |"
        )
    return "\n".join([*lines, ""])


def quality(runs: list[dict[str, Any]]) -> str:
    """Best and final loss of each seed, and their means."""
    lines = [
        "| seed | best, whole split | at step | final | seconds | of the command |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        lines.append(
            f"| {run['seed']} | {run['best']:.4f} | {run['best_step']} | {run['final']:.4f} "
            f"| {run['seconds']:.0f} | {run['wall']:.0f} |"
        )
    if len(runs) > 1:
        best, final = (statistics.mean(run[x] for run in runs) for x in ("best", "final"))
        lines.append(f"| mean | {best:.4f} | | {final:.4f} | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
