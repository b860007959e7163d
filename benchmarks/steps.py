"""Training steps side by side: each contestant in its own process, taking turns."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from compare.measuring.processes import Process
from gptjax.config import RunConfig
from gptjax.errors import RunError
from gptjax.files import write_json

WARM_SECONDS = 0.5  # seconds of steps before a contestant can be dropped
SETTLE = 0.2  # seconds until the last turn's threads stop waiting for more work
HOPELESS = 2.5  # a contestant that takes this many times the best time gets no more turns


class Entry(NamedTuple):
    """A contestant: a library of step_worker.py, and a dtype."""

    library: str
    dtype: str

    @property
    def title(self) -> str:
        """The name in the table."""
        names = {"gptjax": "gptjax", "torch": "PyTorch", "torch-compile": "PyTorch, compiled"}
        return f"{names[self.library]}, {self.dtype}"


def start(entry: Entry, run_config: RunConfig, folder: Path) -> Process:
    """Starts the process of an entry. It answers a `count` of steps with `seconds` (of one step),
    `memory` (the peak, in MB) and the last `loss`.
    """
    path = folder / f"{entry.library}-{entry.dtype}.json"
    write_json(path, run_config.replace(dtype=entry.dtype).to_dict())
    environment = {
        "TORCHINDUCTOR_CACHE_DIR": str(path.with_suffix(".inductor")),
        # Do not reserve the GPU's memory, because all processes use it at the same time.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    command = ["benchmarks.step_worker", entry.library, str(path)]
    return Process(entry.title, command, path.with_suffix(".log"), environment, SETTLE)


def measure(
    run_config: RunConfig,
    entries: list[Entry],
    *,
    turns: int,
    seconds: float,
    tell: Callable[[str], None],
    found: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Measures steps of all entries, one entry after the other in each of `turns` turns.

    Args:
        seconds: approximate time of training in a turn, which has at least one step.
        found: receives the rows so far whenever a row has changed.

    Returns:
        A row for each entry: its name, `step` (seconds per step, one number per turn), `compile`
        (the extra time of the first step), `memory`, and `why` if it had no turns.
    """
    rows: list[dict[str, Any]] = []
    workers: dict[str, Process] = {}
    with tempfile.TemporaryDirectory(prefix="gptjax-steps-") as folder:
        try:
            for entry in entries:
                row: dict[str, Any] = {"name": entry.title, "dtype": entry.dtype, "step": []}
                rows.append(row)
                tell(f"starting {entry.title}")
                try:
                    worker = start(entry, run_config, Path(folder))
                    first = worker.ask(count=1)["seconds"]
                    second = worker.ask(count=1)["seconds"]
                    # Many steps, as in a turn: a single step may take some libraries far longer.
                    more = worker.ask(count=max(1, round(WARM_SECONDS / second)))
                except RunError as error:
                    row["why"] = str(error)
                    tell(str(error))
                    found(rows)
                    continue
                row |= worker.about
                warm = min(second, more["seconds"])
                row |= {"compile": max(0.0, first - warm), "warm": warm}
                row |= {"loss": more["loss"], "memory": more["memory"]}
                workers[entry.title] = worker
                found(rows)
            _drop_the_hopeless(rows, workers)
            for number in range(turns):
                at = number % max(1, len(workers))
                names = list(workers)
                for name in names[at:] + names[:at]:
                    row = next(r for r in rows if r["name"] == name)
                    last = statistics.median(row["step"][-3:] or [row["warm"]])
                    done = workers[name].ask(count=max(1, round(seconds / last)))
                    row["step"].append(done["seconds"])
                    row["memory"] = max(row["memory"], done["memory"])
                found(rows)
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def _drop_the_hopeless(rows: list[dict[str, Any]], workers: dict[str, Process]) -> None:
    best = min((row["warm"] for row in rows if "warm" in row), default=0.0)
    for row in rows:
        if row.get("warm", 0.0) > HOPELESS * best:
            row["why"] = f"one step of {row['warm']:.2f} s; the best took {best:.2f} s"
            row["step"] = [row["warm"]]
            workers.pop(row["name"]).close()
