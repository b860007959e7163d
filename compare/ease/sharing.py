"""Sharing weights: one block in both places, trained as one, with the gradients of both added."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem


def _tell(how: str, numbers: int, norm: float) -> Outcome:
    """The number of trained values, and the shared block's gradient. All designs must agree."""
    says = f"{how}: {numbers:,} numbers to train; the shared block's gradient has norm {norm:.4f}"
    return Outcome(says, {"numbers": numbers, "norm": norm})


def linen(problem: Problem) -> Outcome:
    from gptjax.loss import cross_entropy
    from gptjax.model import forward, num_params

    model, (x, y) = problem.linen(), problem.batch("linen")
    shared = {name: part for name, part in problem.params.items() if name != "block_1"}

    def loss(shared: Any) -> jax.Array:
        params = shared | {"block_1": shared["block_0"]}
        return cross_entropy(forward(model, params, x), y)

    grads = jax.jit(jax.grad(loss))(shared)
    norm = float(jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads["block_0"]))))
    return _tell("one value under two names, inside the loss", num_params(shared), norm)


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, (x, y) = problem.nnx(), problem.batch("nnx")
    model.blocks[1] = model.blocks[0]
    grads = nnx.jit(nnx.grad(gpt.loss))(model, x, y)
    block = jax.tree.leaves(grads["blocks"][0])
    norm = float(jnp.sqrt(sum(jnp.vdot(g, g) for g in block)))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return _tell("an assignment, before the optimizer is made", numbers, norm)


def torch(problem: Problem) -> Outcome:
    from compare import torch_gpt as gpt

    model, (x, y) = problem.torch(), problem.batch("torch")
    model.h[1] = model.h[0]
    gpt.loss(model, x, y).backward()
    block = [p.grad.numpy() for p in model.h[0].parameters()]
    norm = float(np.sqrt(sum((g**2).sum() for g in block)))
    numbers = sum(p.numel() for p in model.parameters())
    return _tell("an assignment, before the optimizer is made", numbers, norm)
