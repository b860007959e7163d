"""Runs a contestant in its own process, with lines of JSON: one request, one answer."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gptjax.errors import RunError

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A Python module that answers each line of its input. `close` kills it.

    Attributes:
        about: its first answer.
        start_seconds: the time until its first answer.

    Args:
        title: its name in errors.
        command: the module and its arguments.
        log: the file for its stderr.
        environment: variables to add to those of this process.
        settle: seconds to wait before each request, so that the threads of the process that
            answered last stop spinning.

    Raises:
        RunError: the process ended; the message has the last line of its log.
    """

    def __init__(
        self, title: str, command: list[str], log: Path, environment: dict[str, str], settle: float
    ) -> None:
        self._title, self._settle = title, settle
        self._log = log.open("w+")
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | environment,
        )
        try:
            self.about = self._read()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start

    def ask(self, **values: Any) -> dict[str, Any]:
        """Sends a request, and returns the answer.

        Raises:
            RunError: the process ended; the message has the last line of its log.
        """
        assert self._process.stdin is not None
        time.sleep(self._settle)
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process ended; `_read` finds out why
        return self._read()

    def close(self) -> None:
        """Kills the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read().strip().splitlines() or ["it said nothing"]
            raise RunError(f"{self._title} failed (status {self._process.returncode}): {said[-1]}")
        return json.loads(line)
