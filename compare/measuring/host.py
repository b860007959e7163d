"""Measures what a design costs on the host: Python's work around a compiled training step.

There are two models. `tiny` has as many layers as the preset, and so as many arrays and objects,
but almost nothing to compute: its step takes about as long as the host's work. With the preset
itself, the same work is a small part of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # PyTorch's process imports this file, and must not import JAX
    from gptjax.config import RunConfig

TINY, PRESET = "tiny", "preset"


def tiny(run_config: RunConfig) -> RunConfig:
    """Returns a configuration with the same number of layers, each as small as possible."""
    return run_config.replace(n_embd=8, n_head=1, block_size=4, vocab_size=8, batch_size=1)


def tiny_batches(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes ids (count, 1, 4) for a tiny model, and their next tokens."""
    ids = np.tile(np.arange(5, dtype=np.int32) % 8, (count, 1, 1))
    return np.ascontiguousarray(ids[..., :-1]), np.ascontiguousarray(ids[..., 1:])


def calls(contestant: Any, batch: Any, batches: Any, count: int) -> dict[str, float]:
    """Seconds of a training step, called in several ways. The first call of each compiles.

    Args:
        batches: N batches for `steps`.
        count: number of steps to time together.

    Returns:
        `step`: one step per dispatch, until the last loss is computed. On JAX also `many`: N steps
        per dispatch, divided by N; `call`: until the call returns, while the device is idle;
        `flatten`: flattening the state into arrays and unflattening it, as each call does.
    """
    found = {"step": _each(contestant.step, batch, count)}
    if not hasattr(contestant, "flatten_state"):
        return found
    repeats = max(1, count // len(batches[0]))
    found["many"] = _each(contestant.steps, batches, repeats) / len(batches[0])
    total = 0.0
    for _ in range(count):
        start = time.perf_counter()
        loss = contestant.step(batch)
        total += time.perf_counter() - start
        loss.block_until_ready()
    found["call"] = total / count
    start = time.perf_counter()
    for _ in range(count):
        contestant.flatten_state()
    found["flatten"] = (time.perf_counter() - start) / count
    return found


def ways(found: dict[str, Callable[[Any], Any]], batch: Any, count: int) -> dict[str, float]:
    """Seconds of a step for each of a contestant's `other_ways`. The first call compiles."""
    return {name: _each(way, batch, count) for name, way in found.items()}


def _each(way: Callable[[Any], Any], batch: Any, count: int) -> float:
    start, result = time.perf_counter(), None
    for _ in range(count):
        result = way(batch)
    np.asarray(result)  # waits for the result, in any library
    return (time.perf_counter() - start) / count


def compiling(contestant: Any, batch: Any) -> dict[str, float]:
    """Times a step's way from Python to machine code, with empty caches.

    Returns:
        Seconds of `trace`, `lower` and `compile`; `hlo`, the number of characters of the program
        that the compiler gets; `instructions`, the number of lines of the compiled program.
    """
    import jax

    jax.clear_caches()
    times = [time.perf_counter()]
    traced = contestant.trace_step(batch)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    trace, lower, compile_ = (b - a for a, b in pairwise(times))
    instructions = sum(" = " in line for line in (compiled.as_text() or "").splitlines())
    return {
        "trace": trace,
        "lower": lower,
        "compile": compile_,
        "hlo": float(len(lowered.as_text())),
        "instructions": float(instructions),
    }
