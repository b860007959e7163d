"""Trains runs side by side, each in its own process, in turns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare.measuring.processes import Process
from gptjax.config import RunConfig

WARM_SECONDS = 0.5  # of updates, until the time of one is known
SETTLE = 0.2  # seconds until the last turn's threads stop waiting for more work


def measure(
    run_configs: dict[str, RunConfig],
    data_dir: Path,
    folder: Path,
    *,
    turns: int,
    seconds: float,
    tell: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Measures updates of all runs in `turns` turns; the order rotates from turn to turn.

    Args:
        folder: for files of the processes.
        seconds: approximate time of training in a turn, which has at least one update.

    Returns:
        For each run by name: its description of itself, and for each turn the seconds of a `step`
        and the seconds in a step in which the host `waited` for tokens.

    Raises:
        RunError: a process has ended.
    """
    rows: dict[str, dict[str, Any]] = {}
    workers: dict[str, Process] = {}
    counts: dict[str, int] = {}
    try:
        for name, run_config in run_configs.items():
            tell(f"starting {name}")
            workers[name] = worker = _start(name, run_config, data_dir, folder)
            worker.ask(count=1)  # runs the initial values' own programs, too
            first = worker.ask(count=1)["seconds"]
            warm = worker.ask(count=max(1, round(WARM_SECONDS / first)))["seconds"]
            counts[name] = max(1, round(seconds / warm))
            rows[name] = worker.about | {"step": [], "waited": []}
        for number in range(turns):
            at = number % len(workers)
            for name in [*workers][at:] + [*workers][:at]:
                said = workers[name].ask(count=counts[name])
                rows[name]["step"].append(said["seconds"])
                rows[name]["waited"].append(said["waited"])
                rows[name]["memory"] = said["memory"]
    finally:
        for worker in workers.values():
            worker.close()
    return rows


def _start(name: str, run_config: RunConfig, data_dir: Path, folder: Path) -> Process:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(run_config.to_dict()))
    command = ["benchmarks.updates_worker", str(path), str(data_dir)]
    return Process(name, command, path.with_suffix(".log"), {}, SETTLE)
