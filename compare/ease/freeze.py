"""Freezing all but the last block: how is it written, and does it hold?"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem
from compare.trees import flatten

LAST = 1  # the block to train


def _tell(how: str, before: dict, after: dict, trained: Any, moments: int) -> Outcome:
    """Whether the frozen weights are unchanged, bit for bit; the size of the optimizer's state."""
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    expected = {name for name in before if trained(name)}
    outcome = "only the last block changed" if changed == expected else f"WRONG: {changed}"
    total = 2 * sum(array.size for array in before.values())
    says = f"{how}: {outcome}; the optimizer keeps {moments:,} numbers of {total:,}"
    return Outcome(says, {"holds": changed == expected, "moments": moments})


def linen(problem: Problem) -> Outcome:
    from compare import linen_gpt as gpt
    from gptjax.optimizer import make_optimizer

    params, (x, y) = problem.params, problem.batch("linen")
    optimizer = make_optimizer(problem.run_config.train)
    trained = {name: p for name, p in params.items() if name == f"block_{LAST}"}
    frozen = {name: p for name, p in params.items() if name not in trained}
    grads = jax.grad(lambda trained: gpt.loss(problem.run_config, frozen | trained, x, y))(trained)
    updates, state = optimizer.update(grads, optimizer.init(trained), trained)
    after = frozen | jax.tree.map(jnp.add, trained, updates)
    moments = sum(a.size for a in jax.tree.leaves(state) if a.ndim)
    how = "the tree is a dict: split it, and differentiate by one part"
    last = f"block_{LAST}/"
    return _tell(how, flatten(params), flatten(after), lambda n: n.startswith(last), moments)


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    def params() -> dict:
        return flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))

    model, (x, y) = problem.nnx(), problem.batch("nnx")
    before = params()
    trained = nnx.All(nnx.Param, lambda path, _: path[:2] == ("blocks", LAST))
    optimizer = nnx.Optimizer(model, gpt.make_optimizer(problem.run_config.train), wrt=trained)
    grads = nnx.grad(gpt.loss, argnums=nnx.DiffState(0, trained))(model, x, y)
    optimizer.update(model, grads)
    moments = sum(a.size for a in jax.tree.leaves(nnx.state(optimizer)) if a.ndim)
    how = "a filter, given to the optimizer (`wrt`) and to the gradient (`DiffState`)"
    return _tell(how, before, params(), lambda n: n.startswith(f"blocks/{LAST}/"), moments)


def torch(problem: Problem) -> Outcome:
    from compare import torch_gpt as gpt

    def params() -> dict:
        return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}

    model, (x, y) = problem.torch(), problem.batch("torch")
    before = params()
    model.requires_grad_(False)
    model.h[LAST].requires_grad_(True)
    optimizer = gpt.make_optimizer(problem.run_config.train, model)
    gpt.train_step(model, optimizer, gpt.make_schedule(problem.run_config.train, optimizer), x, y)
    moments = sum(a.numel() for s in optimizer.state.values() for a in s.values() if a.ndim)
    how = "two calls of `requires_grad_`, and the train step as it is"
    return _tell(how, before, params(), lambda n: n.startswith(f"h.{LAST}."), moments)
