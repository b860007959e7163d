"""Measures the contestants side by side: each in its own process, taking turns.

While one works, the others wait for input. Each round has another order, so that other work on the
machine affects all of them equally.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compare import weights
from compare.contestants import BASIC, CACHED, CONTESTANTS, PACKED, SERVED, WHOLE, ways_to_sample
from compare.measuring import host
from compare.measuring.processes import Process
from gptjax.config import RunConfig
from gptjax.files import write_json

XLA_FLAGS = os.environ.get("XLA_FLAGS", "")  # before a quick run changes it for this process
Measured = dict[str, dict[str, list[float]]]  # by contestant and measure, one number per repetition


class Amounts(NamedTuple):
    """The number of measurements.

    Attributes:
        starts: number of processes of each design that are started, one after another. The tuned
            contestants and torch.compile, which takes half a minute, start once; a single number
            has no spread and no rank.
        rounds: turns of training steps, of samples, and of saves and loads.
        steps: training steps per turn.
        host_rounds: turns of the host's work with the tiny model; with the preset, two fewer.
        host_steps: steps of the tiny model per turn.
        compiles: how often the tiny model's step is traced and compiled; the preset's once less.
            With 0, neither is.
        everything: False skips what takes long to compile: several steps per dispatch and the
            host's work with the preset, other ways to call a step, and all ways to sample except
            the first two.
    """

    starts: int = 3
    rounds: int = 6
    steps: int = 4
    host_rounds: int = 4
    host_steps: int = 120
    compiles: int = 3
    everything: bool = True


QUICK = Amounts(
    starts=1, rounds=3, steps=3, host_rounds=3, host_steps=48, compiles=0, everything=False
)
SAMPLES = {
    CACHED: "sample",
    WHOLE: "sample_whole",
    PACKED: "sample_packed",
    SERVED: "sample_served",
}
SETTLE = 0.05  # seconds until the threads of the last turn stop spinning


def start(name: str, folder: Path) -> Process:
    """Starts a contestant's process."""
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": XLA_FLAGS,
        "TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{time.monotonic_ns()}"),
    }
    title, command = CONTESTANTS[name].title, ["compare.measuring.worker", name, str(folder)]
    return Process(title, command, folder / f"{name}.log", environment, SETTLE)


def prepare(folder: Path, run_config: RunConfig, params: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Writes the processes' input: both configurations, batches x and y (N, B, T), and weights."""
    write_json(folder / "config.json", run_config.to_dict())
    write_json(folder / "tiny.json", host.tiny(run_config).to_dict())
    np.savez(folder / "batches.npz", x=x, y=y)
    for design in {about.design for about in CONTESTANTS.values()}:
        arrays: dict[str, Any] = dict(weights.to_native(design, run_config.model, params))
        np.savez(folder / f"{design}.npz", **arrays)


def sample_lengths(run_config: RunConfig) -> tuple[int, int]:
    """The number of prompt tokens and new tokens. Together they just fill the context."""
    prompt = max(1, run_config.model.block_size // 8)
    return prompt, max(1, run_config.model.block_size - prompt)


class Measurement:
    """All measurements of the contestants in `names`.

    Attributes:
        found: seconds, tokens per second and MB of each repetition.
        host: the host's work for each model (`tiny`, `preset`), in the same form.
        programs: `sameness.describe` of the programs of each contestant on JAX.
        about: threads and versions of each process.

    Args:
        folder: the folder that `prepare` wrote.
        tell: receives lines about the progress.
    """

    def __init__(
        self,
        names: list[str],
        folder: Path,
        run_config: RunConfig,
        amounts: Amounts,
        tell: Callable[[str], None],
    ) -> None:
        self.found: Measured = {name: {} for name in names}
        self.host: dict[str, Measured] = {which: {} for which in (host.TINY, host.PRESET)}
        self.programs: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self._names, self._folder, self._run_config = names, folder, run_config
        self._amounts, self._tell = amounts, tell
        self._processes: dict[str, Process] = {}

    def run(self) -> None:
        """Measures everything.

        Raises:
            RunError: a contestant's process ended; the message has its last line.
        """
        try:
            for number in range(self._amounts.starts):
                self._start(number)
            self.about = {name: process.about for name, process in self._processes.items()}
            self._train()
            self._sample()
            self._checkpoint()
            self._compare_programs()  # before `_host`, which clears the compiled programs
            self._host()
        finally:
            for process in self._processes.values():
                process.close()

    def _add(self, name: str, measure: str, value: float) -> None:
        self.found[name].setdefault(measure, []).append(value)

    def _rounds(self, names: list[str], count: int) -> Iterator[tuple[int, str, Process]]:
        """Yields each contestant in each round: the round's number, its name, its process."""
        for number in range(count):
            for name in turn(names, number) if names else ():
                yield number, name, self._processes[name]

    def _start(self, number: int) -> None:
        last = number == self._amounts.starts - 1
        prompt, _ = sample_lengths(self._run_config)
        for name in turn(self._names, number):
            if name not in BASIC and not last:
                continue
            self._tell(f"start {number + 1} of {self._amounts.starts}: {name}")
            process = self._processes[name] = start(name, self._folder)
            first = process.ask(do="step")["seconds"]
            after = process.ask(do="step", count=2)
            self._add(name, "compile", max(first - after["seconds"], 0.0))
            if not CONTESTANTS[name].tuned:
                self._add(name, "start", process.start_seconds)
                self._add(name, "memory", after["memory"])
            if name in BASIC:
                first = process.ask(do="generate", prompt=prompt, count=1)["seconds"]
                self._add(name, "first_token_cold", first)
            if not last:
                self._processes.pop(name).close()

    def _train(self) -> None:
        self._tell("training steps, taking turns")
        each = self._run_config.train.batch_size * self._run_config.model.block_size
        for _, name, process in self._rounds(self._names, self._amounts.rounds):
            seconds = process.ask(do="step", count=self._amounts.steps)["seconds"]
            self._add(name, "step", seconds)
            self._add(name, "tokens", each / seconds)
        if not self._amounts.everything:
            return
        self._tell("several training steps per dispatch, taking turns")
        names = [name for name in self._names if CONTESTANTS[name].on_jax]
        for number, name, process in self._rounds(names, self._amounts.rounds + 1):
            seconds = process.ask(do="steps", count=self._amounts.steps)["seconds"]
            if number:  # the first one compiles
                self._add(name, "steps", seconds)

    def _sample(self) -> None:
        self._tell("samples, taking turns")
        names = [name for name in self._names if name in BASIC]
        prompt, new = sample_lengths(self._run_config)
        for number, name, process in self._rounds(names, self._amounts.rounds + 1):
            seconds = process.ask(do="generate", prompt=prompt, count=1)["seconds"]
            self._add(name, "first_token", seconds)
            for way in ways_to_sample(name)[: None if self._amounts.everything else 2]:
                each = process.ask(do="generate", prompt=prompt, count=new, way=way)["seconds"]
                if number:  # the first call of this length may compile
                    self._add(name, SAMPLES[way], 1 / each)

    def _checkpoint(self) -> None:
        self._tell("checkpoints, taking turns")
        names = [name for name in self._names if name in BASIC]
        for number, name, process in self._rounds(names, self._amounts.rounds):
            for do in ("save", "load"):
                seconds = process.ask(do=do)["seconds"]
                if number:  # the first load may compile
                    self._add(name, do, seconds)

    def _compare_programs(self) -> None:
        self._tell("the compiled programs, side by side")
        prompt, new = sample_lengths(self._run_config)
        for name in [name for name in self._names if CONTESTANTS[name].on_jax]:
            process = self._processes[name]
            self.programs[name] = process.ask(do="programs", prompt=prompt, count=new)["found"]

    def _host(self) -> None:
        self._tell("the host's work, taking turns")
        names = [name for name in self._names if name in BASIC]
        steps, ways = {host.TINY: self._amounts.host_steps}, self._amounts.everything
        if self._amounts.everything:
            steps[host.PRESET] = self._amounts.steps
        for which, count in steps.items():
            rounds = self._amounts.host_rounds - (2 if which == host.PRESET else 0)
            for number, name, process in self._rounds(names, rounds + 1):
                found = process.ask(do="calls", which=which, count=count, ways=ways)["found"]
                if number:  # the first one compiles
                    self._add_host(which, name, found)
        self._tell("tracing and compiling, taking turns")
        names = [name for name in names if CONTESTANTS[name].on_jax]
        compiles = {host.TINY: self._amounts.compiles, host.PRESET: self._amounts.compiles - 1}
        for which, count in compiles.items():
            for _, name, process in self._rounds(names, count):
                found = process.ask(do="compiling", which=which)["found"]
                self._add_host(which, name, found)

    def _add_host(self, which: str, name: str, found: dict[str, float]) -> None:
        for measure, value in found.items():
            self.host[which].setdefault(name, {}).setdefault(measure, []).append(value)


def turn(names: list[str], number: int) -> Iterator[str]:
    """The names, starting with another name each time."""
    at = number % len(names)
    yield from names[at:] + names[:at]
