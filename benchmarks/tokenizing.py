"""Compares tokenizers in equal time: bits per byte and tokens per second on tiny Shakespeare.

python benchmarks/tokenizing.py                about 25 minutes on 2 cores; needs the extra `data`
python benchmarks/tokenizing.py --steps-only   two minutes: only the time of a step with each
python benchmarks/tokenizing.py --train-only   the rest, with the step times found before; --train
                                               takes the names of some of the tokenizers
python benchmarks/tokenizing.py --quick        a toy model, only to check that it works

First, it measures the time of a step with each tokenizer, in turns. Then `train.py` trains the
preset for a CPU with each: with characters for the preset's steps, with the others for the number
of steps that take the same time by these figures (or, with --minutes, that fit). So a busy machine
only makes the second part longer. Each schedule ends with its run. Writes docs/tokenizing.json and
prints the table.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

from benchmarks.updates import measure  # noqa: E402
from compare.measuring.machine import versions  # noqa: E402
from gptjax.backends.execution import with_micro_batches  # noqa: E402
from gptjax.files import read_json, write_json  # noqa: E402
from gptjax.presets import PRESETS, preset_for  # noqa: E402
from gptjax.store.metrics import read_metrics  # noqa: E402
from gptjax.store.runs import METRICS  # noqa: E402

PRESET = "shakespeare-cpu"
TOKENIZERS: dict[str, dict[str, Any]] = {
    "char": {"tokenizer": "char"},
    "byte": {"tokenizer": "byte"},
    "bpe 512": {"tokenizer": "bpe", "vocab_size": 512},
    "bpe 1,024": {"tokenizer": "bpe", "vocab_size": 1024},
    "bpe 4,096": {"tokenizer": "bpe", "vocab_size": 4096},
}
# AdamW compiles in half the time.
TOY: dict[str, Any] = {
    "optimizer": "adamw",
    "n_layer": 1,
    "n_embd": 16,
    "block_size": 16,
    "eval_iters": 2,
}
LEAST = 100  # steps of a run: with fewer, the warm-up is most of it


def main() -> int:
    """Returns exit status 0, or 2 if a part is missing or the time is too short."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps-only", action="store_true")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--train", nargs="+", choices=list(TOKENIZERS), default=list(TOKENIZERS))
    parser.add_argument("--minutes", type=float, help="of training for each [the preset's steps]")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of training in a turn")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    if not find_spec("tokenizers"):
        return fail("it needs the extra data: pip install -e '.[data]'")
    changes = TOY if args.quick else {}
    args.train = ["bpe 512"] if args.quick else args.train
    tokenizers = {k: TOKENIZERS[k] for k in ("char", "bpe 512")} if args.quick else TOKENIZERS
    path = args.out / "tokenizing.json"
    if args.train_only and not path.is_file():
        return fail(f"{path} is missing: run it with --steps-only first")
    with tempfile.TemporaryDirectory(prefix="gptjax-tokenizing-") as folder:
        if args.train_only:
            results = read_json(path)
        else:
            turns, seconds = (2, 0.2) if args.quick else (args.turns, args.seconds)
            results = timed(tokenizers, changes, Path(folder), turns, seconds)
        rows = results["rows"]
        own, least = (PRESETS[PRESET].train.max_iters, LEAST) if not args.quick else (4, 1)
        seconds = own * statistics.median(rows["char"]["step"])
        seconds = 60 * args.minutes if args.minutes else seconds
        steps = {name: steps_within(seconds, row["step"]) for name, row in rows.items()}
        if short := [name for name, count in steps.items() if count < least]:
            return fail(
                f"{seconds / 60:g} minutes are {steps[short[0]]} steps with {short[0]}, and it "
                f"takes {least}: give more --minutes"
            )
        for name, row in rows.items():
            row |= {"steps": steps[name], "seed": args.seed}
            if name in args.train and not args.steps_only:
                tell(f"training {name}: {steps[name]:,} steps")
                flags = {"max_iters": steps[name], "seed": args.seed} | changes
                row |= trained(tokenizers[name] | flags, Path(folder, name))
            if not args.quick:
                write_json(path, results)
    print(table(rows))
    return 0


def timed(
    tokenizers: dict[str, dict[str, Any]],
    changes: dict[str, Any],
    folder: Path,
    turns: int,
    seconds: float,
) -> dict[str, Any]:
    """Measures the steps with each tokenizer; returns the results of `measure` and the machine."""
    preset = preset_for("cpu", PRESET).replace(**changes)
    run_configs = {
        name: with_micro_batches(preset.replace(**which), "cpu")
        for name, which in tokenizers.items()
    }
    rows = measure(run_configs, ROOT / "data", folder, turns=turns, seconds=seconds, tell=tell)
    return {"versions": versions() | {"tokenizers": version("tokenizers")}, "rows": rows}


def steps_within(seconds: float, step: list[float]) -> int:
    """The number of steps in this time, by the median over the turns of a step's time."""
    return round(seconds / statistics.median(step))


def trained(settings: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Trains a run with `train.py`; returns its last and its best evaluation."""
    flags = [x for name, value in settings.items() for x in (f"--{name}", str(value))]
    command = [sys.executable, str(ROOT / "train.py"), "--preset", PRESET, *flags]
    subprocess.run([*command, "--out-dir", str(out_dir)], cwd=ROOT, stdout=sys.stderr, check=True)
    lines = [line for line in read_metrics(out_dir / METRICS) if "val_loss" in line]
    best = min(lines, key=lambda line: line["val_loss"])
    return {
        "val_loss": lines[-1]["val_loss"],
        "bits_per_byte": lines[-1]["val_bits_per_byte"],
        "best_bits_per_byte": best["val_bits_per_byte"],
        "best_step": best["step"],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line for each tokenizer; without training, only the results of the first part."""
    lines = [
        "| tokenizer | ids | parameters | tokens of the text | bytes a token | ms a step | range "
        "| tokens/s | steps | passes over the text | nats per token | bits per byte | best |",
        "|---" + "|--:" * 12 + "|",
    ]
    for name, row in rows.items():
        step = statistics.median(row["step"])
        passes = row["steps"] * row["tokens_per_update"] / row["train_tokens"]
        cells = [
            name,
            f"{row['vocab_size']:,}",
            f"{row['parameters']:,}",
            f"{row['tokens']:,}",
            f"{row['bytes_per_token']:.2f}",
            f"{1000 * step:.1f}",
            f"{1000 * min(row['step']):.1f} to {1000 * max(row['step']):.1f}",
            f"{row['tokens_per_update'] / step:,.0f}",
            f"{row['steps']:,}",
            f"{passes:.1f}",
        ]
        if "val_loss" in row:
            cells += [f"{row['val_loss']:.4f}", f"{row['bits_per_byte']:.3f}"]
            cells.append(f"{row['best_bits_per_byte']:.3f} at {row['best_step']:,}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fail(problem: str) -> int:
    """Prints what is wrong; returns the exit status."""
    print(f"tokenizing.py: error: {problem}", file=sys.stderr)
    return 2


def tell(message: str) -> None:
    """Prints progress, separately from the table."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
