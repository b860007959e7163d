"""Freezing all but the last block: how is it said, and does it hold?"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compare.contestants import flatten
from compare.ease import Outcome, Problem

LAST = 1  # the block that trains


def _tell(how: str, before: dict, after: dict, trained: Any, moments: int) -> Outcome:
    """Whether what was frozen stayed, bit for bit, and what the optimizer keeps numbers for."""
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    expected = {name for name in before if trained(name)}
    outcome = "only the last block changed" if changed == expected else f"WRONG: {changed}"
    total = 2 * sum(array.size for array in before.values())
    says = f"{how}: {outcome}; the optimizer keeps {moments:,} numbers of {total:,}"
    return Outcome(says, {"holds": changed == expected, "moments": moments})


def linen(problem: Problem) -> Outcome:
    from compare import linen_gpt as gpt
    from gptjax.optimizer import make_optimizer

    x, y, optimizer = (
        jnp.asarray(problem.x[0]),
        jnp.asarray(problem.y[0]),
        make_optimizer(problem.config.train),
    )
    trained = {name: p for name, p in problem.params.items() if name == f"block_{LAST}"}
    frozen = {name: p for name, p in problem.params.items() if name not in trained}
    grads = jax.grad(lambda trained: gpt.loss(problem.config, frozen | trained, x, y))(trained)
    updates, state = optimizer.update(grads, optimizer.init(trained), trained)
    after = frozen | jax.tree.map(jnp.add, trained, updates)
    moments = sum(a.size for a in jax.tree.leaves(state) if a.ndim)
    how = "the tree is a dict: split it, and differentiate by one part"
    return _tell(
        how, flatten(problem.params), flatten(after), lambda n: f"block_{LAST}/" in n, moments
    )


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    def params() -> dict:
        return flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))

    def last(path: Any, _: Any) -> bool:
        return path[:2] == ("blocks", LAST)

    model, _ = gpt.make(problem.config, 0)
    before, x, y = params(), jnp.asarray(problem.x[0]), jnp.asarray(problem.y[0])
    trained = nnx.All(nnx.Param, last)
    optimizer = nnx.Optimizer(model, gpt.make_optimizer(problem.config.train), wrt=trained)
    grads = nnx.grad(gpt.loss, argnums=nnx.DiffState(0, trained))(model, x, y)
    optimizer.update(model, grads)
    moments = sum(a.size for a in jax.tree.leaves(nnx.state(optimizer)) if a.ndim)
    how = "a filter, given to the optimizer (`wrt`) and to the gradient (`DiffState`)"
    return _tell(how, before, params(), lambda name: name.startswith(f"blocks/{LAST}/"), moments)


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    def params() -> dict:
        return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}

    model, optimizer, schedule = gpt.make(problem.config, 0)
    before = params()
    model.requires_grad_(False)
    model.h[LAST].requires_grad_(True)
    x, y = torch.from_numpy(problem.x[0]).long(), torch.from_numpy(problem.y[0]).long()
    gpt.train_step(model, optimizer, schedule, x, y)
    moments = sum(a.numel() for s in optimizer.state.values() for a in s.values() if a.ndim)
    how = "two calls of `requires_grad_`, and the train step as it is"
    return _tell(how, before, params(), lambda name: name.startswith(f"h.{LAST}."), moments)
