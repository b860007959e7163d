"""What suits a backend: the kernels and products that a model is trained with, injected into it."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax import cpu
from gptjax.config import GPTConfig, RunConfig
from gptjax.model import GPT, Execution

Array = jax.Array


def cudnn_attention(q_BTD: Array, k_BTD: Array, v_BTD: Array) -> Array:
    """Causal attention by cuDNN's flash kernel, which never writes the T x T weights to memory."""
    q, k, v = (x[:, :, None] for x in (q_BTD, k_BTD, v_BTD))  # its heads; ours are outside
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
    return y[:, :, 0]


def suited(model: nn.Module, run_config: RunConfig, platform: str) -> tuple[nn.Module, str]:
    """A model as it is best trained here, and what to say of its attention.

    On a CPU the products are cpu.py's.

    cuDNN's kernel needs a GPU, bfloat16, heads of a width that it knows, and no dropout on the
    weights, which it never holds. Whether this GPU and this cuDNN have it is found by trying.

    Args:
        model: a GPT; a rung of the lecture stays as it is.
        platform: `cpu`, `gpu` or `tpu`.
    """
    if not isinstance(model, GPT):
        return model, "plain"
    config, why = run_config.model, ""
    if platform != "gpu":
        why = f"JAX has no kernel for it on a {platform}"
    elif config.dtype != "bfloat16":
        why = f"cuDNN's takes no {config.dtype}"
    elif config.dropout > 0:
        why = "cuDNN's has no dropout"
    elif config.head_size % 8 or config.head_size > 128:
        why = f"cuDNN's takes heads of 8, 16, ... 128, not {config.head_size}"
    elif not _runs(config):
        why = "cuDNN's does not run on this GPU"
    attention = None if why else cudnn_attention
    # Some bfloat16 products have no kernel on a CPU in JAX 0.10, and it is slow there in any case.
    fast = platform == "cpu" and config.dtype == "float32"
    products = {"projection": cpu.projection, "product": cpu.product} if fast else {}
    execution = Execution(attention, remat=run_config.train.remat, **products)
    return model.clone(execution=execution), f"plain ({why})" if why else "cuDNN's"


def _runs(config: GPTConfig) -> bool:
    """Whether cuDNN's kernel and its gradient compile and run, tried on one sequence."""
    x_BTD = jnp.zeros((1, config.block_size, config.head_size), jnp.bfloat16)

    def total(x_BTD: Array) -> Array:
        return cudnn_attention(x_BTD, x_BTD, x_BTD).astype(jnp.float32).sum()

    try:
        jax.block_until_ready(jax.jit(jax.grad(total))(x_BTD))
    except Exception:  # by its version it raises RuntimeError, ValueError or XlaRuntimeError
        return False
    return True
