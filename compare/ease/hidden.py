"""Hidden state and its accidents: a forgotten mode, a draw elsewhere, a snapshot that moves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem

DROPOUT = 0.2
SAFE, LOUD, SILENT = "cannot happen", "an error at once", "happens in silence"


def _tell(mode: str, draw: str, snapshot: str) -> Outcome:
    """The fate of three accidents."""
    says = f"evaluating in training mode: {mode}; a draw of random numbers elsewhere changes the "
    says += f"training: {draw}; a snapshot of the weights moves as training goes on: {snapshot}"
    return Outcome(says, {"mode": mode, "draw": draw, "snapshot": snapshot})


def linen(problem: Problem) -> Outcome:
    from compare import linen_gpt as gpt
    from gptjax import GPT

    config, key = problem.config.replace(dropout=DROPOUT), jax.random.key(1)
    x, y = jnp.asarray(problem.x[0]), jnp.asarray(problem.y[0])
    try:
        GPT(config.model).apply({"params": problem.params}, x)  # type: ignore[call-arg]
        mode = SILENT
    except TypeError:  # `deterministic` has no default
        mode = LOUD

    def train(disturbed: bool) -> float:
        state, loss = gpt.make(config, 0), jnp.float32(0)
        for _ in range(2):
            if disturbed:
                jax.random.uniform(jax.random.key(0))
                np.random.default_rng().random()
            state, loss = gpt.train_step(config, state, x, y, key)
        return float(loss)

    draw = SAFE if train(False) == train(True) else SILENT
    state = gpt.make(config, 0)
    snapshot = state.params
    gpt.train_step(config, state, x, y, key)
    try:  # the step took over the old state's memory
        np.asarray(snapshot["wte"]["embedding"])
        moved = SAFE
    except RuntimeError:
        moved = LOUD
    return _tell(mode, draw, moved)


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    config = problem.config.replace(dropout=DROPOUT)
    x, y = jnp.asarray(problem.x[0]), jnp.asarray(problem.y[0])
    model, optimizer = gpt.make(config, 0)
    # Nothing in the call says that the model is still in training mode.
    mode = SAFE if float(gpt.loss(model, x, y)) == float(gpt.loss(model, x, y)) else SILENT

    def train(disturbed: bool) -> float:
        (model, optimizer), loss = gpt.make(config, 0), jnp.float32(0)
        for _ in range(2):
            if disturbed:
                gpt.forward(model, x)  # a look at the outputs draws from the model's own stream
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

    config = problem.config.replace(dropout=DROPOUT)
    x, y = torch.from_numpy(problem.x[0]).long(), torch.from_numpy(problem.y[0]).long()
    model, optimizer, schedule = gpt.make(config, 0)
    mode = SAFE if gpt.loss(model, x, y).item() == gpt.loss(model, x, y).item() else SILENT

    def train(disturbed: bool) -> float:
        made, loss = gpt.make(config, 0), torch.tensor(0.0)
        for _ in range(2):
            if disturbed:
                torch.rand(1)  # anybody's
            loss = gpt.train_step(*made, x, y)
        return loss.item()

    draw = SAFE if train(False) == train(True) else SILENT
    snapshot = model.state_dict()
    before = snapshot["wte.weight"].clone()
    gpt.train_step(model, optimizer, schedule, x, y)
    moved = SAFE if torch.equal(before, snapshot["wte.weight"]) else SILENT
    return _tell(mode, draw, moved)
