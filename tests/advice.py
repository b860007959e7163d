"""Reads the scripts' errors, and follows their advice."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

SHORT = ["--max-iters", "1", "--eval-interval", "1"]


def refusal(script, *argv: object) -> str:
    """Runs a script that must exit with status 2; returns stderr. Its stdout is discarded."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        assert script.main([str(x) for x in argv]) == 2
    return err.getvalue()


def works(script, *argv: object) -> None:
    assert script.main([str(x) for x in argv]) == 0


def bash(command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in backticks, with the test's programs first in PATH."""
    places = [str(path or ""), str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": ":".join(places)},
    )


def ticked(error: str) -> list[str]:
    return re.findall("`([^`]*)`", error)
