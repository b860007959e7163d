"""Accidents with hidden state: a forgotten mode, a random draw elsewhere, a moving snapshot."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem

DROPOUT = 0.2
SAFE, LOUD, SILENT = "cannot happen", "an error at once", "happens silently"


def _tell(mode: str, draw: str, snapshot: str) -> Outcome:
    """What happens in each of three accidents."""
    says = f"evaluating in training mode: {mode}; random numbers drawn elsewhere change the "
    says += f"training: {draw}; a snapshot of the weights changes as training goes on: {snapshot}"
    return Outcome(says, {"mode": mode, "draw": draw, "snapshot": snapshot})


def linen(problem: Problem) -> Outcome:
    from compare import linen_gpt as gpt

    run_config, key = problem.run_config.replace(dropout=DROPOUT), jax.random.key(1)
    x, y = problem.batch("linen")
    try:
        problem.linen().apply({"params": problem.params}, x)
        mode = SILENT
    except TypeError:  # `deterministic` has no default
        mode = LOUD

    def train(disturbed: bool) -> float:
        state, loss = gpt.make(run_config, 0), jnp.float32(0)
        for _ in range(2):
            if disturbed:
                jax.random.uniform(jax.random.key(0))
                np.random.default_rng().random()
            state, loss = gpt.train_step(run_config, state, x, y, key)
        return float(loss)

    draw = SAFE if train(False) == train(True) else SILENT
    state = gpt.make(run_config, 0)
    snapshot = state.params
    gpt.train_step(run_config, state, x, y, key)
    try:  # the step reused the old state's memory
        np.asarray(snapshot["wte"]["embedding"])
        moved = SAFE
    except RuntimeError:
        moved = LOUD
    return _tell(mode, draw, moved)


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    run_config = problem.run_config.replace(dropout=DROPOUT)
    x, y = problem.batch("nnx")
    model, optimizer = gpt.make(run_config, 0)
    # Nothing in the call says that the model is still in training mode.
    mode = SAFE if float(gpt.loss(model, x, y)) == float(gpt.loss(model, x, y)) else SILENT

    def train(disturbed: bool) -> float:
        (model, optimizer), loss = gpt.make(run_config, 0), jnp.float32(0)
        for _ in range(2):
            if disturbed:
                gpt.forward(model, x)  # computing outputs draws from the model's random stream
            loss = gpt.train_step(model, optimizer, x, y)
        return float(loss)

    draw = SAFE if train(False) == train(True) else SILENT
    snapshot: Any = nnx.state(model, nnx.Param)
    before = np.array(snapshot["wte"]["embedding"][...])
    gpt.train_step(model, optimizer, x, y)
    try:
        same = np.array_equal(before, snapshot["wte"]["embedding"][...])
        moved = SAFE if same else SILENT
    except RuntimeError:
        moved = LOUD
    return _tell(mode, draw, moved)


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    run_config = problem.run_config.replace(dropout=DROPOUT)
    x, y = problem.batch("torch")
    model, optimizer, schedule = gpt.make(run_config, 0)
    mode = SAFE if gpt.loss(model, x, y).item() == gpt.loss(model, x, y).item() else SILENT

    def train(disturbed: bool) -> float:
        made, loss = gpt.make(run_config, 0), torch.tensor(0.0)
        for _ in range(2):
            if disturbed:
                torch.rand(1)  # in any other part of the program
            loss = gpt.train_step(*made, x, y)
        return loss.item()

    draw = SAFE if train(False) == train(True) else SILENT
    snapshot = model.state_dict()
    before = snapshot["wte.weight"].clone()
    gpt.train_step(model, optimizer, schedule, x, y)
    moved = SAFE if torch.equal(before, snapshot["wte.weight"]) else SILENT
    return _tell(mode, draw, moved)
