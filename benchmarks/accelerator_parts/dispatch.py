"""How much the host's part of a dispatch costs, with 1, 10 and 100 updates per dispatch."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator_parts.shapes import shape_of
from benchmarks.accelerator_parts.training import Training
from gptjax.backends.execution import suited
from gptjax.config import RunConfig
from gptjax.data import sample_batch
from gptjax.model import GPT
from gptjax.training import TrainState, init_state, make_keys, make_train_step

Row = dict[str, Any]
AT_ONCE = (1, 10, 100)
FIXED = 10


def measure(found: Callable[[Row], None], *, shape: str, quick: bool) -> None:
    """Measures each number of updates in turns; the last row is for a loop of fixed length."""
    run_config = shape_of(shape, quick)
    training = Training(run_config)
    most = 10 if quick else max(AT_ONCE)
    ways: dict[str, Callable[[], float]] = {
        str(count): partial(training.seconds, most, count) for count in AT_ONCE if count <= most
    }
    ways[f"{FIXED}, a constant"] = _fixed(run_config, most)
    steps: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(3 if quick else 6):
        for name, seconds in ways.items():
            step = seconds()
            if turn > 0:  # the first compiles
                steps[name].append(step)
                found({"key": name, "at_once": name, "step": steps[name]})


def _fixed(run_config: RunConfig, updates: int) -> Callable[[], float]:
    """Seconds per update if a dispatch always has FIXED updates.

    train.py's loop ends when a condition on the device is false. On a GPU, the host waits for that
    condition after each update before it starts the next. With a constant number of updates, the
    host need not wait. This loop does not check whether updates are finite.
    """
    model = suited(GPT(run_config.model), run_config, jax.default_backend())
    step, keys = make_train_step(model, run_config), make_keys(0)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 65, 100_000).astype(np.uint8))
    batch_size, block_size = run_config.train.batch_size, run_config.model.block_size

    @partial(jax.jit, donate_argnums=0)
    def many(state: TrainState) -> tuple[TrainState, jax.Array]:
        def one(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
            batch = sample_batch(tokens, keys.data, state.step, batch_size, block_size)
            state, metrics = step(state, batch, keys.dropout)
            return state, metrics.loss

        return jax.lax.scan(one, state, length=FIXED)

    state = jax.jit(partial(init_state, model, run_config))(keys.params)

    def seconds() -> float:
        nonlocal state
        began, losses = time.perf_counter(), None
        for _ in range(updates // FIXED):
            state, losses = many(state)
        np.asarray(losses)
        return (time.perf_counter() - began) / updates

    return seconds


def table(rows: list[Row], **_: Any) -> str:
    """Milliseconds per update, by the number of updates per dispatch."""
    lines = ["| updates a dispatch | ms an update, median | range |", "|--:|--:|--:|"]
    for row in rows:
        low, middle, high = min(row["step"]), statistics.median(row["step"]), max(row["step"])
        lines.append(
            f"| {row['at_once']} | {1000 * middle:,.3f} | {1000 * low:,.3f} to {1000 * high:,.3f} |"
        )
    return "\n".join(lines)
