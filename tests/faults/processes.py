"""The scripts as processes of their own, to be killed; and what two runs have in common."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

import train
from gptjax import checkpoint, runs
from gptjax.training import init_state, make_keys

from conftest import TINY

ROOT = Path(train.__file__).parent
TIMES = ("seconds", "tokens_per_second")

# The processes see this checkout whatever their folder. They do not share the tests' compiled
# programs: one that is killed leaves half an entry in JAX's cache, which is a warning here.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def start(script: str, *flags: object, **options) -> subprocess.Popen[str]:
    """`train.py` or `sample.py` as a process; its output is captured."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, flags)],
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, **options},
    )


def call(script: str, *flags: object, **options) -> tuple[int, str, str]:
    """The same to its end: exit status, stdout and stderr."""
    process = start(script, *flags, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def train_flags(path: Path, text_file: Path, *flags: object) -> list[str]:
    """A tiny run at `path`; later flags have the last word."""
    return [*TINY, "--data", str(text_file), "--out-dir", str(path), *map(str, flags)]


def wait_for(process: subprocess.Popen[str], ready, seconds: float = 120) -> None:
    """Until `ready()`; fails if the process ends before."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def saved_steps(path: Path) -> list[int]:
    """The steps of a run's checkpoints, by their names alone: also while it is written to."""
    folder = path / runs.CHECKPOINTS
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def final_state(path: Path):
    """The newest checkpoint's whole state."""
    config, _ = runs.read_run(path)
    model = runs.make_model(config)
    abstract = jax.eval_shape(lambda k: init_state(model, config, k), make_keys(0).params)
    newest = checkpoint.list_checkpoints(path / runs.CHECKPOINTS)[0][-1]
    return checkpoint.load_state(newest.path, abstract)


def assert_same_state(a: Path, b: Path) -> None:
    """Bit for bit: step, parameters and the optimizer's moments."""
    for x, y in zip(*(jax.tree.leaves(final_state(p)) for p in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def metrics(path: Path, *left_out: str) -> list[dict]:
    """The lines of metrics.jsonl, every one of which must be whole."""
    text = (path / runs.METRICS).read_text()
    assert text == "" or text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k not in left_out} for line in lines]


def one_line(err: str, script: str = "train.py") -> str:
    """The one line of an error, without a traceback."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith(f"{script}: warning: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith(f"{script}: error: ")
    return lines[0]
