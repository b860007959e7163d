"""gptjax's CPU products and attention (gptjax/backends/cpu.py), injected into each design on JAX.

All three get the same functions, so that the tuned contestants differ only in their design, as the
plain ones do. The amount of code is a result too: the page counts these lines.

    linen   the model has a field for them
    plain   the model's function has an argument for them
    nnx     they are assigned to the layers of a finished model
"""

from collections.abc import Callable
from typing import Any

import jax

from compare import plain_gpt
from gptjax.backends import cpu
from gptjax.model import Execution

Array = jax.Array


def attention(q_HBTD: Array, k_HBTD: Array, v_HBTD: Array, drop: Callable[[Array], Array]) -> Array:
    """Merges heads and batch into one axis, because cpu.attention is for one head.

    cpu.attention applies dropout to one part of the queries at a time, and passes its beginning.
    """
    H, B = q_HBTD.shape[:2]
    q, k, v = (x.reshape(H * B, *x.shape[2:]) for x in (q_HBTD, k_HBTD, v_HBTD))
    return cpu.attention(q, k, v, lambda weights, part: drop(weights)).reshape(q_HBTD.shape)


def product(x_BTC: Array, w_CF: Array) -> Array:
    """cpu.product without the arguments that Linen and NNX pass to a `dot_general`."""
    return cpu.product(x_BTC, w_CF, None)


def einsum(how: str, x_BTC: Array, w_HCD: Array, **_: Any) -> Array:
    """cpu.project_all with the signature that nnx.Einsum expects; returns (B, T, H, D)."""
    return cpu.project_all(x_BTC, w_HCD).transpose(1, 2, 0, 3)


def linen() -> Execution:
    """The execution for `GPT(model_config, execution)`."""
    return Execution(cpu.attention, cpu.projection, cpu.product)


def plain() -> plain_gpt.Execution:
    """The execution for the functions of plain_gpt.py."""
    return plain_gpt.Execution(cpu.project_all, product, attention)


def nnx(model: Any) -> None:
    """Changes an NnxGPT in place. Its functions then compile again."""
    for block in model.blocks:
        block.attn.attention = attention
        for projection in (block.attn.query, block.attn.key, block.attn.value):
            projection.einsum_op = einsum
        for layer in (block.attn.proj, block.mlp.fc, block.mlp.proj):
            layer.dot_general = cpu.product
