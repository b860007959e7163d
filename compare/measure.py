"""Measures the contestants side by side: each in its own process, taking turns.

While one works the others wait for input. The turns go round and round, each round in another
order, so that whatever else the machine does falls on all of them alike.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compare import contestants, weights
from compare.processes import Process
from gptjax.config import RunConfig
from gptjax.files import write_json

XLA_FLAGS = os.environ.get("XLA_FLAGS", "")  # before a quick run changes it for itself
Measured = dict[str, dict[str, list[float]]]  # contestant, measure, one number a repetition


class Amounts(NamedTuple):
    """How much is measured.

    Attributes:
        starts: processes that are started of each contestant.
        rounds: turns of training steps, of samples, of saves and loads.
        steps: training steps in a turn.
    """

    starts: int = 3
    rounds: int = 9
    steps: int = 4


QUICK = Amounts(starts=1, rounds=3, steps=3)
# torch.compile takes half a minute, so it starts once; one number has no spread and no rank.
STARTS_ONCE = ("torch-compile",)
SETTLE = 0.05  # seconds in which the last turn's threads stop waiting for more work


def start(name: str, folder: Path) -> Process:
    """A contestant's process."""
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": XLA_FLAGS,
        "TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{time.monotonic_ns()}"),
    }
    title, command = contestants.CONTESTANTS[name].title, ["compare.worker", name, str(folder)]
    return Process(title, command, folder / f"{name}.log", environment, SETTLE)


def prepare(folder: Path, config: RunConfig, params: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Writes what the processes read: batches x, y (N, B, T) and the weights under all names."""
    write_json(folder / "config.json", config.to_dict())
    np.savez(folder / "batches.npz", x=x, y=y)
    for name in {about.weights for about in contestants.CONTESTANTS.values()}:
        arrays: dict[str, Any] = dict(weights.to_native(name, config.model, params))
        np.savez(folder / f"{name}.npz", **arrays)


def sample_lengths(config: RunConfig) -> tuple[int, int]:
    """Tokens of the prompt and new ones: together the context, so that no window is moved."""
    prompt = max(1, config.model.block_size // 8)
    return prompt, max(1, config.model.block_size - prompt)


def run(
    names: list[str],
    folder: Path,
    config: RunConfig,
    amounts: Amounts,
    tell: Callable[[str], None],
) -> tuple[Measured, dict[str, Any]]:
    """All measurements, in seconds, tokens per second and MB, and what each process says of itself.

    Raises:
        RunError: a contestant's process ended; the message has its last line.
    """
    found: Measured = {name: {} for name in names}

    def add(name: str, measure: str, value: float) -> None:
        found[name].setdefault(measure, []).append(value)

    processes: dict[str, Process] = {}
    try:
        for number in range(amounts.starts):
            last = number == amounts.starts - 1
            for name in turn(names, number):
                if name in STARTS_ONCE and not last:
                    continue
                tell(f"start {number + 1} of {amounts.starts}: {name}")
                process = processes[name] = start(name, folder)
                add(name, "start", process.start_seconds)
                first = process.ask(do="step")["seconds"]
                after = process.ask(do="step", count=2)
                add(name, "first_step", first)
                add(name, "compile", max(first - after["seconds"], 0.0))
                add(name, "memory", after["memory"])
                if name not in STARTS_ONCE:
                    first = process.ask(do="generate", prompt=sample_lengths(config)[0], count=1)
                    add(name, "first_token_cold", first["seconds"])
                if not last:
                    processes.pop(name).close()
        _take_turns(names, processes, config, amounts, add, tell)
        return found, {name: process.about for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.close()


def _take_turns(
    names: list[str],
    processes: dict[str, Process],
    config: RunConfig,
    amounts: Amounts,
    add: Callable[[str, str, float], None],
    tell: Callable[[str], None],
) -> None:
    tokens = config.train.batch_size * config.model.block_size
    tell("training steps, taking turns")
    for number in range(amounts.rounds):
        for name in turn(names, number):
            seconds = processes[name].ask(do="step", count=amounts.steps)["seconds"]
            add(name, "step", seconds)
            add(name, "tokens", tokens / seconds)
    # The compiled PyTorch samples with the code that the other one samples with.
    names = [name for name in names if name not in STARTS_ONCE]
    prompt, new = sample_lengths(config)
    tell("samples, taking turns")
    for number in range(amounts.rounds):
        for name in turn(names, number):
            seconds = processes[name].ask(do="generate", prompt=prompt, count=1)["seconds"]
            add(name, "first_token", seconds)
            each = processes[name].ask(do="generate", prompt=prompt, count=new)["seconds"]
            if number:  # the first call of this length may compile
                add(name, "sample", 1 / each)
    tell("checkpoints, taking turns")
    for number in range(amounts.rounds):
        for name in turn(names, number):
            for do in ("save", "load"):
                seconds = processes[name].ask(do=do)["seconds"]
                if number:  # so may the first load
                    add(name, do, seconds)


def turn(names: list[str], number: int) -> Iterator[str]:
    """The names, starting with another one each time."""
    at = number % len(names)
    yield from names[at:] + names[:at]
