"""Checkpoint surgery: of two blocks drop the second, move the first up, put a fresh one below it.

The new block adds nothing at first, so the model must compute what the first block alone does.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem


def _tell(how: str, problem: Problem, logits: np.ndarray) -> Outcome:
    """How far the logits are from those of the first block alone."""
    from gptjax import GPT

    alone = GPT(dataclasses.replace(problem.run_config.model, n_layer=1))
    want = alone.apply({"params": problem.params}, problem.x[0], deterministic=True)
    difference = float(np.abs(logits - np.asarray(want)).max())
    says = f"{how}: the logits are those of the first block alone within {difference:.0e}"
    return Outcome(says, {"difference": difference})


def linen(problem: Problem) -> Outcome:
    model, params, (x, _) = problem.linen(), problem.params, problem.batch("linen")
    fresh: Any = model.init(jax.random.key(1), x, deterministic=True)["params"]["block_0"]
    for name in ("attn", "mlp"):
        fresh[name]["proj"] = jax.tree.map(jnp.zeros_like, fresh[name]["proj"])
    params = params | {"block_0": fresh, "block_1": params["block_0"]}
    logits = model.apply({"params": params}, x, deterministic=True)
    return _tell("keys of a dict", problem, np.asarray(logits))


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, (x, _) = problem.nnx(), problem.batch("nnx")
    model.blocks[1] = model.blocks[0]
    model.blocks[0] = gpt.Block(problem.run_config.model, nnx.Rngs(1))
    for layer in (model.blocks[0].attn.proj, model.blocks[0].mlp.proj):
        nnx.update(layer, jax.tree.map(jnp.zeros_like, nnx.state(layer)))
    model.eval()
    return _tell("assignments", problem, np.asarray(gpt.forward(model, x)))


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    model, (x, _) = problem.torch(), problem.batch("torch")
    model.h[1] = model.h[0]
    model.h[0] = gpt.Block(problem.run_config.model)
    for layer in (model.h[0].attn.c_proj, model.h[0].mlp.c_proj):
        for weight in layer.parameters():
            torch.nn.init.zeros_(weight)
    with torch.inference_mode():
        logits = model.eval()(x)
    return _tell("assignments", problem, logits.numpy())
