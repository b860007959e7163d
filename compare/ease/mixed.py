"""Mixed precision for a float32 model: bfloat16 products, float32 weights and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem


def _tell(how: str, before: np.ndarray, after: np.ndarray, float32: bool) -> Outcome:
    """How far the logits moved: only a little, if only products are rounded."""
    moved = float(np.abs(after - before).max() / np.abs(before).max())
    kept = "stay float32" if float32 else "do not stay float32"
    says = f"{how}: the logits move by {moved:.1%} of the largest, weights and gradients {kept}"
    return Outcome(says, {"moved": moved, "float32": float32})


def linen(problem: Problem) -> Outcome:
    from gptjax.loss import cross_entropy
    from gptjax.model import forward

    model, params, (x, y) = problem.linen(), problem.params, problem.batch("linen")
    mixed = model.clone(config=dataclasses.replace(model.config, dtype="bfloat16"))
    before, after = (jax.jit(forward, static_argnums=0)(m, params, x) for m in (model, mixed))
    grads = jax.jit(jax.grad(lambda p: cross_entropy(forward(mixed, p, x), y)))(params)
    float32 = all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, grads)))
    how = "another module for the same weights, its `dtype` replaced"
    return _tell(how, np.asarray(before), np.asarray(after), float32)


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, (x, y) = problem.nnx(), problem.batch("nnx")
    model.eval()
    before = gpt.forward(model, x)
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "dtype"):
            setattr(module, "dtype", jnp.bfloat16)  # noqa: B010 - its type does not say
    after = gpt.forward(model, x)
    grads = nnx.jit(nnx.grad(gpt.loss))(model, x, y)
    leaves = jax.tree.leaves((nnx.state(model, nnx.Param), grads))
    float32 = all(leaf.dtype == jnp.float32 for leaf in leaves)
    how = "a loop over the modules that sets each one's `dtype`"
    return _tell(how, np.asarray(before), np.asarray(after), float32)


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    model, (x, y) = problem.torch(), problem.batch("torch")
    model.eval()
    before = model(x).detach()
    model.config = dataclasses.replace(model.config, dtype="bfloat16")
    after = model(x).detach()
    gpt.loss(model, x, y).backward()
    leaves = [t for p in model.parameters() for t in (p, p.grad) if t is not None]
    float32 = all(t.dtype == torch.float32 for t in leaves)
    how = "`torch.autocast`, which its `forward` enters by its configuration"
    return _tell(how, before.numpy(), after.numpy(), float32)
