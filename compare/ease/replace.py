"""Replacing one layer from outside, keeping its weights: the second block's ReLU becomes a GELU."""

import dataclasses

import numpy as np

from compare.ease import Outcome, Problem


def _tell(how: str, before: np.ndarray, after: np.ndarray) -> Outcome:
    """How far the logits moved. All designs must agree if they replaced the same layer."""
    moved = float(np.abs(after - before).max())
    return Outcome(f"{how}: the logits move by up to {moved:.5f}", {"moved": moved})


def linen(problem: Problem) -> Outcome:
    from flax import linen as nn

    from gptjax.model import FeedForward

    model, (x, _) = problem.linen(), problem.batch("linen")
    gelu = FeedForward(dataclasses.replace(model.config, activation="gelu"), parent=None)

    def interceptor(next_function, args, kwargs, context):
        if context.module.path != ("block_1", "mlp"):
            return next_function(*args, **kwargs)
        return gelu.apply({"params": problem.params["block_1"]["mlp"]}, *args, **kwargs)

    def logits():
        return np.asarray(model.apply({"params": problem.params}, x, deterministic=True))

    before = logits()
    with nn.intercept_methods(interceptor):
        after = logits()
    how = "`nn.intercept_methods`, a function that sees every call of every layer"
    return _tell(how, before, after)


def nnx(problem: Problem) -> Outcome:
    from compare import nnx_gpt as gpt

    model, (x, _) = problem.nnx(), problem.batch("nnx")
    model.eval()
    before = gpt.forward(model, x)
    model.blocks[1].mlp.activation = gpt.ACTIVATIONS["gelu"]
    after = gpt.forward(model, x)
    how = "an assignment; the next call compiles again"
    return _tell(how, np.asarray(before), np.asarray(after))


def torch(problem: Problem) -> Outcome:
    import torch

    model, (x, _) = problem.torch(), problem.batch("torch")
    with torch.inference_mode():
        before = model.eval()(x).numpy()
        model.h[1].mlp.activation = torch.nn.GELU()
        after = model(x).numpy()
    return _tell("an assignment", before, after)
