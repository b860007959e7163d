"""Looking at a layer's output without touching the model's file: is it available?"""

import jax
import numpy as np

from compare.ease import Outcome, Problem


def _tell(how: str, output_BTC: np.ndarray, weights: bool, why: str) -> Outcome:
    """The first block's output, as one number to compare, and whether attention can be seen."""
    norm = float(np.linalg.norm(output_BTC))
    says = f"{how}: the first block's output is {output_BTC.shape}, norm {norm:.4f}; "
    says += f"the attention weights are {'visible too' if weights else 'not visible'}: {why}"
    return Outcome(says, {"norm": norm, "shape": list(output_BTC.shape), "weights": weights})


def linen(problem: Problem) -> Outcome:
    model, (x, _) = problem.linen(), problem.batch("linen")
    params = {"params": problem.params}
    look = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, seen = model.apply(params, x, deterministic=True, **look)
    output = seen["intermediates"]["block_0"]["__call__"][0]
    why = "they are a function's result, and only modules' results are captured"
    return _tell("`capture_intermediates`", np.asarray(output), False, why)


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    model, (x, _) = problem.nnx(), problem.batch("nnx")
    model.eval()
    look = nnx.capture(model, nnx.Intermediate, method_outputs=nnx.Intermediate)
    _, seen = look(x)
    output = jax.tree.leaves(seen["blocks"][0]["__call__"])[0]
    why = "they are a value inside a method, which would have to `sow` them"
    return _tell("`nnx.capture`", np.asarray(output), False, why)


def torch(problem: Problem) -> Outcome:
    model, (x, _) = problem.torch(), problem.batch("torch")
    model.eval()
    seen = {}
    handle = model.h[0].register_forward_hook(lambda *call: seen.update(block=call[-1]))
    model(x)
    handle.remove()
    output = seen["block"].detach()
    why = "the fused kernel never holds them"
    return _tell("a forward hook, to be removed again", output.numpy(), False, why)
