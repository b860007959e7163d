"""Starts the scripts as separate processes, so that tests can kill them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import train
from gptjax.store import runs

from conftest import tiny, with_flags

ROOT = Path(train.__file__).parent

# The processes import this checkout in any working directory. They do not share the tests' cache of
# compiled programs: a killed process leaves an incomplete entry in JAX's cache, which causes a
# warning here. Their output is buffered, as a user's is.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


def start(script: str, *flags: object, **options) -> subprocess.Popen[str]:
    """Starts `train.py` or `sample.py` as a process, and captures its output."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, flags)],
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, **options},
    )


def call(script: str, *flags: object, **options) -> tuple[int, str, str]:
    """Runs a script to its end; returns exit status, stdout and stderr."""
    process = start(script, *flags, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def train_flags(path: Path, text_file: Path, *flags: object) -> list[str]:
    """The flags of a tiny run at `path`; the given flags have the last word."""
    return with_flags(tiny("--data", text_file, "--out-dir", path), *flags)


def wait_for(process: subprocess.Popen[str], ready, seconds: float = 120) -> None:
    """Waits until `ready()`; fails if the process ends first."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def saved_steps(path: Path) -> list[int]:
    """The steps of a run's checkpoints, from their names alone, so that the run may be writing."""
    folder = path / runs.CHECKPOINTS
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def one_line(err: str, script: str = "train.py") -> str:
    """The one line of an error, without a traceback."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith(f"{script}: warning: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith(f"{script}: error: ")
    return lines[0]
