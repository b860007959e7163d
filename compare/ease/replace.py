"""Replacing one layer from outside, its weights kept: the second block's ReLU becomes a GELU."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from compare.contestants import unflatten
from compare.ease import Outcome, Problem


def _tell(how: str, before: np.ndarray, after: np.ndarray) -> Outcome:
    """How far the logits moved: the same in all, if all replaced the same layer."""
    moved = float(np.abs(after - before).max())
    return Outcome(f"{how}: the logits move by up to {moved:.5f}", {"moved": moved})


def linen(problem: Problem) -> Outcome:
    from flax import linen as nn

    from gptjax import GPT
    from gptjax.model import FeedForward

    model, x = GPT(problem.config.model), jnp.asarray(problem.x[0])
    gelu = FeedForward(dataclasses.replace(problem.config.model, activation="gelu"), parent=None)

    def interceptor(next_function, args, kwargs, context):
        if context.module.path != ("block_1", "mlp"):
            return next_function(*args, **kwargs)
        return gelu.apply({"params": problem.params["block_1"]["mlp"]}, *args, **kwargs)

    def logits():
        return np.asarray(model.apply({"params": problem.params}, x, deterministic=True))

    before = logits()
    with nn.intercept_methods(interceptor):
        after = logits()
    return _tell(
        "`nn.intercept_methods`, a function that meets every call of every layer", before, after
    )


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, _ = gpt.make(problem.config, 0)
    state = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(state, unflatten(problem.native("nnx"), jnp.asarray))
    nnx.update(model, state)
    x = jnp.asarray(problem.x[0])
    model.eval()
    before = np.asarray(gpt.forward(model, x))
    model.blocks[1].mlp.activation = gpt.ACTIVATIONS["gelu"]
    return _tell(
        "an assignment; the next call compiles anew", before, np.asarray(gpt.forward(model, x))
    )


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    model, _, _ = gpt.make(problem.config, 0)
    model.load_state_dict({n: torch.from_numpy(a) for n, a in problem.native("torch").items()})
    x = torch.from_numpy(problem.x[0]).long()
    with torch.inference_mode():
        before = model.eval()(x).numpy()
        model.get_submodule("h.1.mlp").activation = torch.nn.GELU()
        after = model(x).numpy()
    return _tell("an assignment", before, after)
