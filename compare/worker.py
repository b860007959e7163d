"""One contestant in a process of its own: it reads one request a line, and answers each.

    python -m compare.worker NAME FOLDER

The folder holds config.json, weights.npz (under the contestant's own names) and batches.npz. Only
the contestant's own library is imported, so that start-up time and memory are its own.
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
    """Builds the contestant, says so, and does as it is told until its input ends."""
    is_torch = name.startswith("torch")
    contestant = contestants.build(name, read_config(name, folder / "config.json"))
    with np.load(folder / f"{contestants.CONTESTANTS[name].weights}.npz") as file:
        contestant.set_weights(dict(file))
    with np.load(folder / "batches.npz") as file:
        batches = [contestant.put(x, y) for x, y in zip(file["x"], file["y"], strict=True)]
        prompt = file["x"][0, :1]
    packages = TORCH_PACKAGES if is_torch else JAX_PACKAGES
    answer(threads=threads(is_torch), versions={package: version(package) for package in packages})
    steps = 0
    for line in sys.stdin:
        request = json.loads(line)
        count, start = request.get("count", 1), time.perf_counter()
        if request["do"] == "step":
            loss: Any = None
            for _ in range(count):
                loss = contestant.step(batches[steps % len(batches)])
                steps += 1
            float(loss)  # waits for it
        elif request["do"] == "generate":
            contestant.generate(prompt[:, : request["prompt"]], count)
        elif request["do"] == "save":
            contestant.save(folder / f"saved-{name}")
        elif request["do"] == "load":
            contestant.load(folder / f"saved-{name}")
        answer(seconds=(time.perf_counter() - start) / count, memory=peak_memory())


def read_config(name: str, path: Path) -> Any:
    """A RunConfig for `linen`; for the others its fields, hashable, without importing gptjax."""
    if name == "linen":
        from gptjax.config import RunConfig

        return RunConfig.from_dict(json.loads(path.read_text()))
    return json.loads(path.read_text(), object_hook=lambda d: namedtuple("Config", d)(**d))


def threads(is_torch: bool) -> int:
    """How many the library computes with; JAX has one for each core that it may use."""
    if is_torch:
        import torch

        return torch.get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> float:
    """The most that this process has had in memory so far, in MB.

    Linux tells it for this program alone; getrusage, elsewhere, counts what ran before exec too.
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
    """One line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
