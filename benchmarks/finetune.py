"""Fine-tuning beside training from scratch: the same model, text and number of steps.

python benchmarks/finetune.py            about 10 minutes on 2 cores
python benchmarks/finetune.py --quick    a toy model: that it works, no figures

A model of 0.8 M parameters trains on the first half of tiny Shakespeare. `--init-from` then
fine-tunes it on another kind of text: the reference of the Python language, which comes with every
Python (`pydoc_data.topics`). The same model trains on that text from fresh weights, for the same
number of steps, and again for the steps of both trainings together. For each way, the learning
rate is the best of four, chosen with a seed that does not count. Every run is `train.py` in its own
process. Losses are of the whole validation split. Writes docs/finetune.json and docs/finetune.png,
and prints the tables.
"""

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone, nothing installed

from compare.measuring.machine import versions  # noqa: E402
from gptjax.app.pictures import matplotlib_defaults, new_figure, save_png  # noqa: E402
from gptjax.files import write_json  # noqa: E402
from gptjax.store.metrics import read_metrics  # noqa: E402
from gptjax.text.corpora import load_text  # noqa: E402

FINE, SCRATCH, LONGER = "fine-tuned", "from scratch", "from scratch for longer"
RATES = (0.005, 0.01, 0.02, 0.04)  # 0.02 is the preset's, chosen for training from scratch
FLAGS = "--preset shakespeare-cpu --tokenizer byte --log-interval 10".split()


class Size(NamedTuple):
    """How large the benchmark is.

    Attributes:
        model: flags of the model.
        before: steps on the first text.
        steps: steps on the second text.
        interval: steps between evaluations.
        rates: learning rates to choose from, with seed 0.
        seeds: those that count.
        ways: to train on the second text.
    """

    model: Sequence[str]
    before: int
    steps: int
    interval: int
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    ways: tuple[str, ...]


FULL = Size(["--block-size", "64"], 600, 200, 20, RATES, (1, 2, 3), (FINE, SCRATCH, LONGER))
TINY = "--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --eval-iters 10".split()
TOY = Size(TINY, 4, 2, 1, (0.02,), (0,), (FINE, SCRATCH))


class Bench:
    """Texts and runs in a folder that is removed at the end."""

    def __init__(self, folder: Path, size: Size) -> None:
        """Writes both texts."""
        self._folder, self._size = folder, size
        plays = load_text("shakespeare", ROOT / "data").text
        self._first, self.second = folder / "plays.txt", folder / "reference.txt"
        self._first.write_text(plays[: len(plays) // 2])
        self.second.write_text("\n".join(topics[name] for name in sorted(topics)))

    def run(self, way: str, seed: int, rate: float) -> list[tuple[int, float]]:
        """A run on the second text: steps and validation losses."""
        out = self._folder / f"{way}, seed {seed}, rate {rate}"
        steps, interval = self._size.steps, self._size.interval
        if way == LONGER:  # of which only the end is shown
            steps = interval = self._size.before + self._size.steps
        start = ["--init-from", self._source(seed)] if way == FINE else self._size.model
        flags = ["--learning-rate", rate, "--seed", seed]
        return _trained(self.second, out, steps, interval, *start, *flags)

    def _source(self, seed: int) -> Path:
        """A run on the first text, at the preset's learning rate."""
        out = self._folder / f"before, seed {seed}"
        before = self._size.before
        _trained(self._first, out, before, before, *self._size.model, "--seed", seed)
        return out


def _trained(
    text: Path, out: Path, steps: int, interval: int, *flags: object
) -> list[tuple[int, float]]:
    """Trains by train.py, unless the run is there; returns steps and validation losses."""
    argv = [*FLAGS, "--data", text, "--out-dir", out, "--max-iters", steps]
    argv += ["--eval-interval", interval, *flags]
    if not out.exists():
        command = [sys.executable, ROOT / "train.py", *map(str, argv)]
        print(f"{out.name}: {steps} steps", file=sys.stderr, flush=True)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    lines = read_metrics(out / "metrics.jsonl")
    return [(x["step"], x["val_loss"]) for x in lines if "val_loss" in x]


def main() -> int:
    """Exit status 0, whichever way is better."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    size = TOY if args.quick else FULL
    with tempfile.TemporaryDirectory(prefix="gptjax-finetune-") as folder:
        bench = Bench(Path(folder), size)
        text = bench.second.read_bytes()
        results: dict[str, Any] = {
            "versions": versions(),
            "steps": {"before": size.before, "fine": size.steps},
            "text": {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()},
        }
        # 1. Each way's learning rate, with a seed that does not count.
        tried = {
            way: {str(rate): bench.run(way, 0, rate)[-1][1] for rate in size.rates}
            for way in (FINE, SCRATCH)
        }
        chosen = {
            way: float(min(found, key=lambda rate: found[rate])) for way, found in tried.items()
        }
        chosen[LONGER] = chosen[SCRATCH]
        # 2. The runs that count.
        results |= {"rates": tried, "chosen": chosen}
        results["runs"] = [
            {"seed": seed, **{way: bench.run(way, seed, chosen[way]) for way in size.ways}}
            for seed in size.seeds
        ]
    print(table(results))
    if not args.quick:
        write_json(args.out / "finetune.json", results)
        draw(args.out / "finetune.png", results)
    return 0


def table(results: dict[str, Any]) -> str:
    """The rates that were tried, the last losses of each seed, and the mean difference."""
    tried, runs, steps = results["rates"], results["runs"], results["steps"]
    lines = [f"| learning rate | {' | '.join(tried[FINE])} |", f"|---|{'---|' * len(tried[FINE])}"]
    for way, found in tried.items():
        lines.append(f"| {way} | {' | '.join(f'{x:.4f}' for x in found.values())} |")
    counts = {FINE: steps["fine"], SCRATCH: steps["fine"], LONGER: sum(steps.values())}
    ways = [way for way in counts if way in runs[0]]
    heads = [f"{way}, {counts[way]:,} steps" for way in ways]
    lines += ["", f"| seed | {' | '.join(heads)} | lower by |", f"|---|{'---|' * (len(ways) + 1)}"]
    gains = [run[SCRATCH][-1][1] - run[FINE][-1][1] for run in runs]
    for run, gain in zip(runs, gains, strict=True):
        last = " | ".join(f"{run[way][-1][1]:.4f}" for way in ways)
        lines.append(f"| {run['seed']} | {last} | {gain:.4f} |")
    mean = f"Fine-tuning is lower by {statistics.mean(gains):.4f} nats per byte on average."
    return "\n".join([*lines, "", mean])


@matplotlib_defaults()
def draw(path: Path, results: dict[str, Any]) -> None:
    """Validation loss against steps on the second text, by seed; a line where longer runs end."""
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    for way, colour, style in ((SCRATCH, "tab:red", "--"), (FINE, "tab:blue", "-")):
        for i, run in enumerate(results["runs"]):
            label = f"{way} (learning rate {results['chosen'][way]:g})" if i == 0 else None
            axes.plot(*zip(*run[way], strict=True), style, color=colour, lw=1.5, label=label)
    total = sum(results["steps"].values())
    end = statistics.mean(run[LONGER][-1][1] for run in results["runs"])
    axes.axhline(end, color="tab:green", ls=":", label=f"from scratch, after {total:,} steps")
    axes.set_xlabel("steps on the Python reference")
    axes.set_ylabel("validation loss (nats per byte)")
    axes.grid(alpha=0.3)
    axes.legend()
    save_png(figure, path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
