"""A gradient for each example of a batch: how much of the training code can be reused?"""

from functools import partial

import jax

from compare.ease import Outcome, Problem, timed
from compare.figures import show_spread, spread


def _tell(how: str, together: list[float], loop: list[float], difference: float) -> Outcome:
    """The times of both ways, and whether the mean equals the batch's gradient."""
    says = f"{how}: {show_spread(spread(together))} ms for 8 examples"
    says += f", against {show_spread(spread(loop))} ms for a loop of them; " if loop else "; "
    says += f"their mean is the batch's gradient within {difference:.0e}"
    return Outcome(says, {"together_ms": together, "loop_ms": loop, "difference": difference})


def linen(problem: Problem) -> Outcome:
    from compare import linen_gpt as gpt

    x, y = problem.batch("linen")
    loss = partial(gpt.loss, problem.run_config)
    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))
    grads = each(problem.params, x[:, None], y[:, None])
    batch = jax.grad(loss)(problem.params, x, y)
    difference = max(
        jax.tree.leaves(jax.tree.map(lambda a, b: abs(a.mean(0) - b).max(), grads, batch))
    )
    time = timed(problem, lambda: each(problem.params, x[:, None], y[:, None]))
    return _tell("`vmap(grad(loss))`", time, [], float(difference))


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, (x, y) = problem.nnx(), problem.batch("nnx")
    model.eval()
    each = nnx.jit(nnx.vmap(nnx.grad(gpt.loss), in_axes=(None, 0, 0)))
    grads = each(model, x[:, None], y[:, None])
    batch = nnx.grad(gpt.loss)(model, x, y)
    difference = max(
        jax.tree.leaves(jax.tree.map(lambda a, b: abs(a.mean(0) - b).max(), grads, batch))
    )
    time = timed(problem, lambda: jax.tree.leaves(each(model, x[:, None], y[:, None])))
    return _tell("`nnx.vmap(nnx.grad(loss))`", time, [], float(difference))


def torch(problem: Problem) -> Outcome:
    import torch
    from torch.func import functional_call, grad, vmap
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from compare import torch_gpt as gpt

    model, (x, y) = problem.torch(), problem.batch("torch")
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params, x_BT, y_BT):
        logits = functional_call(model, params, (x_BT,))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y_BT.flatten())

    def together():
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no rule for vmap
            return vmap(grad(loss), in_dims=(None, 0, 0))(params, x[:, None], y[:, None])

    def loop():
        found = []
        for i in range(len(x)):
            model.zero_grad()
            gpt.loss(model, x[i : i + 1], y[i : i + 1]).backward()
            found.append([p.grad for p in model.parameters()])
        return found

    model.zero_grad()
    gpt.loss(model, x, y).backward()
    grads = together()
    differences = [(grads[n].mean(0) - p.grad).abs().max() for n, p in model.named_parameters()]
    how = "`functional_call`, then `torch.func.vmap(grad(loss))`"
    return _tell(how, timed(problem, together), timed(problem, loop), float(max(differences)))
