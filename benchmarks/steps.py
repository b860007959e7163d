"""Training steps side by side: each contestant in its own process, taking turns."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gptjax.config import RunConfig
from gptjax.files import write_json

ROOT = Path(__file__).resolve().parent.parent
SETTLE = 0.2  # seconds in which the last turn's threads stop waiting for more work
HOPELESS = 2.5  # times the best: one that is this much slower has no more turns


class Entry(NamedTuple):
    """Who takes part: a library of step_worker.py, in a dtype."""

    library: str
    dtype: str

    @property
    def title(self) -> str:
        """As the table has it."""
        names = {"gptjax": "gptjax", "torch": "PyTorch", "torch-compile": "PyTorch, compiled"}
        return f"{names[self.library]}, {self.dtype}"


class Worker:
    """A contestant's process. It is killed when it is closed."""

    def __init__(self, entry: Entry, config: RunConfig, folder: Path) -> None:
        path = folder / f"{entry.library}-{entry.dtype}.json"
        write_json(path, config.replace(dtype=entry.dtype).to_dict())
        self.title = entry.title
        self._log = path.with_suffix(".log").open("w+")
        environment = os.environ | {
            "JAX_ENABLE_COMPILATION_CACHE": "false",  # a compile found on the disk is none
            "TORCHINDUCTOR_CACHE_DIR": str(path.with_suffix(".inductor")),
            # Others' memory is none of its business: on a GPU all processes are there at once.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.step_worker", entry.library, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self.about = self._read()

    def steps(self, count: int) -> dict[str, float]:
        """Has it train: `seconds` of one step, `memory` in MB at the highest, the last `loss`."""
        assert self._process.stdin is not None
        time.sleep(SETTLE)
        try:
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; reading tells why
        return self._read()

    def close(self) -> None:
        """Ends it, whatever it is doing."""
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
            self._log.close()
            raise Failed(f"{self.title} failed (status {self._process.returncode}): {said[-1]}")
        return json.loads(line)


class Failed(Exception):
    """A contestant's process ended; the message has its last line."""


def measure(
    config: RunConfig,
    entries: list[Entry],
    *,
    turns: int,
    seconds: float,
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Steps of all entries, one after the other in each of `turns` turns.

    Args:
        seconds: of training in a turn, about; at least one step.

    Returns:
        A row for each entry: its name, `step` (seconds of a step, one number a turn), `compile`
        (what the first step took more than another), `memory`, and `why` if it had no turns.
    """
    rows: list[dict[str, Any]] = []
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory(prefix="gptjax-steps-") as folder:
        try:
            for entry in entries:
                row: dict[str, Any] = {"name": entry.title, "dtype": entry.dtype, "step": []}
                rows.append(row)
                tell(f"starting {entry.title}")
                try:
                    worker = Worker(entry, config, Path(folder))
                    first = worker.steps(1)["seconds"]
                    second = worker.steps(1)
                except Failed as error:
                    row["why"] = str(error)
                    tell(str(error))
                    continue
                row |= worker.about
                row |= {"compile": max(0.0, first - second["seconds"]), "loss": second["loss"]}
                row |= {"memory": second["memory"], "warm": second["seconds"]}
                workers[entry.title] = worker
            _drop_the_hopeless(rows, workers)
            for number in range(turns):
                at = number % max(1, len(workers))
                names = list(workers)
                for name in names[at:] + names[:at]:
                    row = next(r for r in rows if r["name"] == name)
                    last = statistics.median(row["step"][-3:] or [row["warm"]])
                    found = workers[name].steps(max(1, round(seconds / last)))
                    row["step"].append(found["seconds"])
                    row["memory"] = max(row["memory"], found["memory"])
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def _drop_the_hopeless(rows: list[dict[str, Any]], workers: dict[str, Worker]) -> None:
    best = min((row["warm"] for row in rows if "warm" in row), default=0.0)
    for row in rows:
        if row.get("warm", 0.0) > HOPELESS * best:
            row["why"] = f"one step of {row['warm']:.2f} s; the best took {best:.2f} s"
            row["step"] = [row["warm"]]
            workers.pop(row["name"]).close()
