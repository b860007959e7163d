"""Resuming bit for bit, with dropout on: what must be saved besides the weights?"""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from compare.ease import Outcome, Problem

HALF, DROPOUT = 5, 0.2


def _tell(
    what: str, saved: list[float], without: list[float], whole: list[float], lost: str
) -> Outcome:
    """Compares the second half's losses: resumed, resumed without `lost`, and uninterrupted."""
    same, forgetful = saved == whole[HALF:], without == whole[HALF:]
    resumed = "the same bit for bit" if same else "DIFFERENT"
    then = "still the same" if forgetful else "different, without any warning"
    says = f"{what}: the resumed losses are {resumed}; without {lost} they are {then}"
    return Outcome(says, {"same": same, "same_without": forgetful})


def linen(problem: Problem) -> Outcome:
    from compare import linen_gpt as gpt

    run_config, key = problem.run_config.replace(dropout=DROPOUT), jax.random.key(1)

    def train(state: Any, steps: range) -> tuple[Any, list[float]]:
        losses = []
        for i in steps:
            x, y = jnp.asarray(problem.x[i]), jnp.asarray(problem.y[i])
            state, loss = gpt.train_step(run_config, state, x, y, key)
            losses.append(float(loss))
        return state, losses

    _, whole = train(gpt.make(run_config, 0), range(2 * HALF))
    state, _ = train(gpt.make(run_config, 0), range(HALF))
    with tempfile.TemporaryDirectory() as folder:
        gpt.save(Path(folder), state)
        _, saved = train(gpt.load(Path(folder), run_config), range(HALF, 2 * HALF))
        fresh: Any = gpt.load(Path(folder), run_config)
        fresh = fresh.replace(step=jnp.int32(0))
    _, without = train(fresh, range(HALF, 2 * HALF))
    what = "one value is saved, and each step derives its key from its number"
    return _tell(what, saved, without, whole, "the step's number")


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    run_config = problem.run_config.replace(dropout=DROPOUT)

    def train(model: Any, optimizer: Any, steps: range) -> list[float]:
        ids = [(jnp.asarray(problem.x[i]), jnp.asarray(problem.y[i])) for i in steps]
        return [float(gpt.train_step(model, optimizer, x, y)) for x, y in ids]

    whole = train(*gpt.make(run_config, 0), range(2 * HALF))
    first = gpt.make(run_config, 0)
    train(*first, range(HALF))
    with tempfile.TemporaryDirectory() as folder:
        gpt.save(Path(folder) / "state", *first)
        second, third = gpt.make(run_config, 0), gpt.make(run_config, 0)
        gpt.load(Path(folder) / "state", *second)
        gpt.load(Path(folder) / "state", *third)
    rngs = nnx.state(gpt.make(run_config, 0)[0], nnx.RngState)  # of a new model
    nnx.update(third[0], rngs)
    saved, without = (train(*each, range(HALF, 2 * HALF)) for each in (second, third))
    what = "the state of model and optimizer is saved, including the streams of random numbers"
    return _tell(what, saved, without, whole, "those streams (saving `nnx.Param` alone)")


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    run_config = problem.run_config.replace(dropout=DROPOUT)
    x, y = torch.from_numpy(problem.x).long(), torch.from_numpy(problem.y).long()

    def train(made: Any, steps: range) -> list[float]:
        return [gpt.train_step(*made, x_BT=x[i], y_BT=y[i]).item() for i in steps]

    whole = train(gpt.make(run_config, 0), range(2 * HALF))
    first = gpt.make(run_config, 0)
    train(first, range(HALF))
    with tempfile.TemporaryDirectory() as folder:
        gpt.save(Path(folder), *first)
        second: Any = gpt.make(run_config, 0)
        third: Any = gpt.make(run_config, 0)
        gpt.load(Path(folder), *third)
        torch.manual_seed(0)
        without = train(third, range(HALF, 2 * HALF))
        gpt.load(Path(folder), *second)
        saved = train(second, range(HALF, 2 * HALF))
    what = "weights, moments, step and the global random state are saved, each by hand"
    return _tell(what, saved, without, whole, "the global random state")
