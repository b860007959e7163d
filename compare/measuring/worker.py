"""Runs one contestant in its own process: reads a request from each line, and answers it.

    python -m compare.measuring.worker NAME FOLDER

`measurement.prepare` writes the folder. The process imports only the contestant's own library, so
that start-up time and memory are the contestant's own.
"""

import json
import os
import sys
import time
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from compare import contestants

JAX_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
TORCH_PACKAGES = ("torch", "numpy")


def main(name: str, folder: Path) -> None:
    """Builds the contestant, reports that, and answers requests until its input ends."""
    about = contestants.CONTESTANTS[name]
    worker = Worker(name, folder)
    packages = JAX_PACKAGES if about.on_jax else TORCH_PACKAGES
    answer(
        threads=threads(not about.on_jax),
        versions={package: version(package) for package in packages},
    )
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        said = getattr(worker, request.pop("do"))(**request) or {}
        seconds = (time.perf_counter() - start) / request.get("count", 1)
        answer(**{"seconds": seconds, "memory": peak_memory()} | said)


class Worker:
    """The requests that a process answers, one method each. Its result is added to the answer.

    Args:
        name: the contestant's name.
        folder: the folder with its weights and batches.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._contestant = contestants.build(name, read_config(name, folder / "config.json"))
        with np.load(folder / f"{contestants.CONTESTANTS[name].design}.npz") as file:
            self._contestant.set_weights(dict(file))
        with np.load(folder / "batches.npz") as file:
            self._x, self._y = file["x"], file["y"]
        put = self._contestant.put
        self._batches = [put(x, y) for x, y in zip(self._x, self._y, strict=True)]
        self._steps = 0
        self._models: dict[str, Any] = {}

    def step(self, count: int = 1) -> None:
        """Trains `count` steps, and waits for the last loss."""
        loss: Any = None
        for _ in range(count):
            loss = self._contestant.step(self._batches[self._steps % len(self._batches)])
            self._steps += 1
        float(loss)  # waits for the loss

    def steps(self, count: int) -> None:
        """Like `step`, in one dispatch."""
        many = self._contestant.put(self._x[:count], self._y[:count])
        np.asarray(self._contestant.steps(many))

    def generate(self, prompt: int, count: int, way: str = contestants.CACHED) -> None:
        """Generates `count` greedy tokens after a prompt."""
        self._contestant.generate(self._x[0, :1, :prompt], count, way)

    def save(self) -> None:
        """Saves a checkpoint."""
        self._contestant.save(self._folder / f"saved-{self._name}")

    def load(self) -> None:
        """Loads the checkpoint."""
        self._contestant.load(self._folder / f"saved-{self._name}")

    def calls(self, which: str, count: int, ways: bool) -> dict[str, Any]:
        """`host.calls` of a model, with `ways` also `host.ways`."""
        from compare.measuring import host

        contestant, batch, many = self._model(which, count)
        found = host.calls(contestant, batch, many, count)
        if ways and which == host.TINY and hasattr(contestant, "other_ways"):
            if "ways" not in self._models:
                self._models["ways"] = contestant.other_ways()
            found |= host.ways(self._models["ways"], batch, count)
        return {"found": found}

    def compiling(self, which: str) -> dict[str, Any]:
        """`host.compiling` of a model."""
        from compare.measuring import host

        contestant, batch, _ = self._model(which, 1)
        return {"found": host.compiling(contestant, batch)}

    def programs(self, prompt: int, count: int) -> dict[str, Any]:
        """`sameness.describe` of the training step and, if it has its own, of sampling."""
        from compare.measuring import sameness

        found = {"training": sameness.describe(self._contestant.trace_step(self._batches[0]))}
        if contestants.ways_to_sample(self._name):
            sampling = self._contestant.trace_sampling(self._x[0, :1, :prompt], count)
            found["sampling"] = sameness.describe(sampling)
        return {"found": found}

    def _model(self, which: str, count: int) -> Any:
        """A contestant, one batch, and many (`count` for the preset). Made at the first call."""
        from compare.measuring import host

        if which not in self._models:
            contestant, x, y = self._contestant, self._x[:count], self._y[:count]
            if which == host.TINY:
                run_config = read_config(self._name, self._folder / "tiny.json")
                contestant = contestants.build(self._name, run_config)
                x, y = host.tiny_batches(16)
            self._models[which] = contestant, contestant.put(x[0], y[0]), contestant.put(x, y)
        return self._models[which]


def read_config(name: str, path: Path) -> Any:
    """A RunConfig for Linen; for the others a hashable record, which needs no gptjax."""
    if contestants.CONTESTANTS[name].design == "linen":
        from gptjax.config import RunConfig

        return RunConfig.from_dict(json.loads(path.read_text()))
    return json.loads(path.read_text(), object_hook=lambda d: namedtuple("Config", d)(**d))


def threads(is_torch: bool) -> int:
    """The library's number of threads. JAX has one for each core that it may use."""
    if is_torch:
        import torch

        return torch.get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> float:
    """The peak memory of this process so far, in MB.

    Linux counts only this program; elsewhere, getrusage includes what ran before exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def answer(**values: Any) -> None:
    """Prints one line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
