"""Checks two equalities: a run's checkpoint here and on a CPU, and a run repeated."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator_parts.opened import logits
from benchmarks.accelerator_parts.process import ROOT
from benchmarks.accelerator_parts.runs import TOY, last_line, train
from gptjax.errors import RunError
from gptjax.store.runs import load_run

Row = dict[str, Any]
# Few sequences, so that the CPU's part takes only seconds.
SMALL = "--preset shakespeare --dtype bfloat16 --batch-size 8 --eval-iters 4 --eval-interval 10"
TWICE = "--preset shakespeare --max-iters 200 --eval-interval 100"


def measure(found: Callable[[Row], None], *, what: str, data: str, quick: bool) -> None:
    """Makes a row for each comparison, with `ok`. This process itself computes on a CPU."""
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory(prefix="gptjax-same-") as folder:
        (resumed if what == "resume" else repeated)(found, data, quick, Path(folder))


def resumed(found: Callable[[Row], None], data: str, quick: bool, folder: Path) -> None:
    """Trains here and opens the run on a CPU, and the reverse. Each also continues training there.

    Logits count as the same if they differ by at most twice the change that bfloat16 itself causes,
    both as a root mean square.
    """
    flags = f"{TOY} --dtype bfloat16" if quick else f"{SMALL} --max-iters 4"
    orders = [("here", "on a CPU"), ("on a CPU", "here")]
    platforms = {"here": None, "on a CPU": "cpu"}
    for first, second in orders[:1] if quick else orders:
        path = folder / first.replace(" ", "-")
        _train(flags, path, "--data", data, platform=platforms[first])
        there, exact = logits(path, "bfloat16"), logits(path, "float32")
        here = _logits_here(path)
        rounding, difference = _rms(there - exact), _rms(here - there)
        row: Row = {"key": first, "what": f"trained {first}: logits here and on a CPU"}
        row |= {"difference": difference, "allowed": 2 * rounding}
        found(row | {"ok": bool(difference <= 2 * rounding)})
        _train("--resume --max-iters 8", path, "--data", data, platform=platforms[second])
        what = f"trained {first}, goes on {second}"
        found({"key": f"{first}, on", "what": what, "ok": True})


def repeated(found: Callable[[Row], None], data: str, quick: bool, folder: Path) -> None:
    """Repeats a run, with and without --deterministic, and compares all parameters."""
    for flag in ("--deterministic",) if quick else ("--deterministic", ""):
        paths = [folder / f"{flag or 'as-it-is'}-{number}" for number in (1, 2)]
        for path in paths:
            flags = f"{TOY if quick else TWICE} {flag}"
            _train(flags, path, "--data", data)
        trees = [load_run(path, "latest").params for path in paths]
        differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *trees)
        largest = max(jax.tree.leaves(differences))
        what = f"a run twice{', ' if flag else ''}{flag}: parameters"
        # Without the flag, there is no guarantee.
        ok = largest == 0 if flag else None
        found({"key": flag or "none", "what": what, "difference": largest, "allowed": 0, "ok": ok})


def _train(flags: str, path: Path, *more: str, platform: str | None = None) -> None:
    log = path.with_suffix(".log")
    with train(flags, "--out-dir", str(path), *more, log=log, platform=platform) as process:
        status = process.wait()
    if status:
        raise RunError(f"train.py {flags} ended with status {status}: {last_line(log)}")


def _logits_here(path: Path) -> np.ndarray:
    """`opened.logits` in bfloat16, in a process that computes on the accelerator."""
    answer = path / "answer.npy"
    command = [sys.executable, "-m", "benchmarks.accelerator_parts.opened", str(path), str(answer)]
    subprocess.run(command, cwd=ROOT, check=True)
    return np.load(answer)


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def table(rows: list[Row], **_: Any) -> str:
    """A line for each comparison."""
    lines = ["| what | difference | allowed | the same |", "|---|--:|--:|---|"]
    for row in rows:
        numbers = [f"{row[name]:.3g}" if name in row else "" for name in ("difference", "allowed")]
        said = {True: "yes", False: "**no**", None: "not promised"}[row["ok"]]
        lines.append(f"| {row['what']} | {' | '.join(numbers)} | {said} |")
    return "\n".join(lines)
