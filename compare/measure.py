"""Measures the contestants side by side: each in its own process, taking turns.

While one works the others wait for input. The turns go round and round, each round in another
order, so that whatever else the machine does falls on all of them alike.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compare import contestants, weights
from gptjax.config import RunConfig
from gptjax.errors import RunError
from gptjax.files import write_json

ROOT = Path(__file__).resolve().parent.parent
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


class Process:
    """A contestant's process and the two pipes to it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._log = (folder / f"{name}.log").open("w+")
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",  # a compile found on the disk is none
            "XLA_FLAGS": XLA_FLAGS,
            "TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{time.monotonic_ns()}"),
        }
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "compare.worker", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        try:
            self.about = self._read()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start

    def ask(self, do: str, **values: Any) -> dict[str, float]:
        """Has it do something; answers with `seconds` (of one) and `memory` (MB, the peak)."""
        time.sleep(SETTLE)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
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
            title = contestants.CONTESTANTS[self.name].title
            raise RunError(f"{title} failed (status {self._process.returncode}): {said[-1]}")
        return json.loads(line)


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
                process = processes[name] = Process(name, folder)
                add(name, "start", process.start_seconds)
                first = process.ask("step")["seconds"]
                after = process.ask("step", count=2)
                add(name, "first_step", first)
                add(name, "compile", max(first - after["seconds"], 0.0))
                add(name, "memory", after["memory"])
                if name not in STARTS_ONCE:
                    first = process.ask("generate", prompt=sample_lengths(config)[0], count=1)
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
            seconds = processes[name].ask("step", count=amounts.steps)["seconds"]
            add(name, "step", seconds)
            add(name, "tokens", tokens / seconds)
    # The compiled PyTorch samples with the code that the other one samples with.
    names = [name for name in names if name not in STARTS_ONCE]
    prompt, new = sample_lengths(config)
    tell("samples, taking turns")
    for number in range(amounts.rounds):
        for name in turn(names, number):
            seconds = processes[name].ask("generate", prompt=prompt, count=1)["seconds"]
            add(name, "first_token", seconds)
            each = processes[name].ask("generate", prompt=prompt, count=new)["seconds"]
            if number:  # the first call of this length may compile
                add(name, "sample", 1 / each)
    tell("checkpoints, taking turns")
    for number in range(amounts.rounds):
        for name in turn(names, number):
            for do in ("save", "load"):
                seconds = processes[name].ask(do)["seconds"]
                if number:  # so may the first load
                    add(name, do, seconds)


def turn(names: list[str], number: int) -> Iterator[str]:
    """The names, starting with another one each time."""
    at = number % len(names)
    yield from names[at:] + names[:at]
