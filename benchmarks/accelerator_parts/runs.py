"""Whole runs of train.py: losses over the whole validation split, and when they were reached."""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.accelerator_parts.process import ROOT
from gptjax.store.metrics import read_metrics

Row = dict[str, Any]
TARGETS = (1.50, 1.47)  # nats per character; nanoGPT publishes 1.4697
SEEDS = (1337, 1, 2)
PRESET = "--preset shakespeare"
MUON = f"{PRESET} --optimizer muon --schedule linear --min-lr 0 --eval-interval 125"
# Settings that the CPU's experiments suggest for a GPU (docs/results.md), the most promising first.
# There, Muon's rate is 2e-2 at a width of 128; here, it falls with the width, or by half.
CANDIDATES = {
    "Muon, 2,000 steps": f"{MUON} --max-iters 2000 --learning-rate 6e-3",
    "Muon, 1,000 steps": f"{MUON} --max-iters 1000 --learning-rate 6e-3",
    "Muon, a higher rate": f"{MUON} --max-iters 2000 --learning-rate 1e-2",
    "Muon, more decay": f"{MUON} --max-iters 2000 --learning-rate 6e-3 --weight-decay 0.3",
    "Muon, more dropout": f"{MUON} --max-iters 2000 --learning-rate 6e-3 --dropout 0.3",
    "AdamW, linear, 3,000 steps": f"{PRESET} --schedule linear --min-lr 0 --max-iters 3000",
    "AdamW, linear": f"{PRESET} --schedule linear --min-lr 0",
}
TOY = (
    "--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4 "
    "--max-iters 4 --eval-interval 2 --eval-iters 2"
)
PAUSE = 2.0  # seconds between two reads of the metrics


def commands(kind: str, quick: bool) -> dict[str, str]:
    """The flags of each run, for `seeds` or `candidates`."""
    if quick:
        return {"toy": TOY}
    if kind == "candidates":
        return CANDIDATES
    return {f"seed {seed}": f"{PRESET} --seed {seed}" for seed in SEEDS}


def measure(found: Callable[[Row], None], *, kind: str, data: str, quick: bool) -> None:
    """Measures a row for each run, updated after each of its evaluations."""
    for name, flags in commands(kind, quick).items():
        with tempfile.TemporaryDirectory(prefix="gptjax-run-") as folder:
            follow(found, name, flags, data, Path(folder) / "run")


def follow(found: Callable[[Row], None], name: str, flags: str, data: str, path: Path) -> None:
    """Follows one run: yields a row whenever its metrics have a new validation loss."""
    began, seen, log = time.monotonic(), 0, path.with_suffix(".log")
    row: Row = {"key": name, "name": name, "flags": flags, "losses": []}
    with train(flags, "--data", data, "--out-dir", str(path), log=log) as process:
        while True:
            try:
                status = process.wait(timeout=PAUSE)
            except subprocess.TimeoutExpired:
                status = None
            losses = [
                [line["step"], line["seconds"], line["val_loss"]]
                for line in read_metrics(path / "metrics.jsonl")
                if "val_loss" in line
            ]
            row |= {"losses": losses, "wall": time.monotonic() - began, "status": status}
            if status:
                row["why"] = last_line(log)
            if status is not None or len(losses) > seen:
                seen = len(losses)
                found(row)
            if status is not None:
                return


def train(
    flags: str, *more: str, log: Path, platform: str | None = None
) -> subprocess.Popen[bytes]:
    """Starts train.py with these flags.

    Args:
        log: the file for its stderr.
        platform: replaces the platform that JAX would choose.
    """
    environment = os.environ | ({"JAX_PLATFORMS": platform} if platform else {})
    command = [sys.executable, "train.py", *shlex.split(flags), *more]
    with log.open("wb") as stderr:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr, env=environment
        )


def last_line(log: Path) -> str:
    """The last line of a log, with the reason why a program failed."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def table(rows: list[Row], **_: Any) -> str:
    """A line for each run, and the means of the finished ones."""
    heads = [f"s to {target:.2f}" for target in TARGETS]
    lines = [
        "Losses are of the whole validation split; seconds are the run's own, compiling included.",
        "",
        f"| run | best | at step | final | {' | '.join(heads)} | seconds | of the command |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if not row["losses"]:
            why = row.get("why", "running")
            lines.append(f"| {row['name']} | {why} | | | | | | |")
            continue
        (best_step, _, best), (step, seconds, final) = _best(row), row["losses"][-1]
        times = [
            next((f"{at:.0f}" for _, at, loss in row["losses"] if loss <= target), "")
            for target in TARGETS
        ]
        note = "" if row["status"] == 0 else f" (until step {step})"
        lines.append(
            f"| {row['name']}{note} | {best:.4f} | {best_step} | {final:.4f} "
            f"| {' | '.join(times)} | {seconds:.0f} | {row['wall']:.0f} |"
        )
    whole = [row for row in rows if row["status"] == 0 and row["losses"]]
    if len(whole) > 1:
        best = statistics.mean(_best(row)[2] for row in whole)
        final = statistics.mean(row["losses"][-1][2] for row in whole)
        lines.append(f"| mean | {best:.4f} | | {final:.4f} | | | | |")
    flags = [f"{row['name']}: python train.py {row['flags']}" for row in rows]
    return "\n".join([*lines, "", "```text", *flags, "```"])


def _best(row: Row) -> list[Any]:
    return min(row["losses"], key=lambda loss: loss[2])
