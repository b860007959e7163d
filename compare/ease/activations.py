"""Looking at what a layer puts out, without touching the model's file: is it there to be had?"""

import jax
import jax.numpy as jnp
import numpy as np

from compare.contestants import unflatten
from compare.ease import Outcome, Problem


def _tell(how: str, output_BTC: np.ndarray, weights: bool, why: str) -> Outcome:
    """The first block's output, as one number to compare, and whether attention can be seen."""
    norm = float(np.linalg.norm(output_BTC))
    says = f"{how}: the first block's output is {output_BTC.shape}, norm {norm:.4f}; "
    says += f"the attention weights are {'seen too' if weights else 'not seen'}: {why}"
    return Outcome(says, {"norm": norm, "shape": list(output_BTC.shape), "weights": weights})


def linen(problem: Problem) -> Outcome:
    from gptjax import GPT

    _, seen = GPT(problem.config.model).apply(
        {"params": problem.params},
        jnp.asarray(problem.x[0]),
        deterministic=True,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    block = seen["intermediates"]["block_0"]
    why = "they are a function's result, and only modules' results are captured"
    return _tell("`capture_intermediates`", np.asarray(block["__call__"][0]), False, why)


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, _ = gpt.make(problem.config, 0)
    state = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(state, unflatten(problem.native("nnx"), jnp.asarray))
    nnx.update(model, state)
    model.eval()
    look = nnx.capture(model, nnx.Intermediate, method_outputs=nnx.Intermediate)
    _, seen = look(jnp.asarray(problem.x[0]))
    output = jax.tree.leaves(seen["blocks"][0]["__call__"])[0]
    why = "they are a value inside a method, which would have to `sow` them"
    return _tell("`nnx.capture`", np.asarray(output), False, why)


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    model, _, _ = gpt.make(problem.config, 0)
    model.load_state_dict({n: torch.from_numpy(a) for n, a in problem.native("torch").items()})
    model.eval()
    seen = {}
    handle = model.h[0].register_forward_hook(lambda *call: seen.update(block=call[-1]))
    model(torch.from_numpy(problem.x[0]).long())
    handle.remove()
    why = "the fused kernel never holds them"
    return _tell("a forward hook, to be removed again", seen["block"].detach().numpy(), False, why)
