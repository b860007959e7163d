"""Chooses the attention and products that train a model fastest, and injects them into it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.backends import cpu
from gptjax.backends.scanned import scan_blocks
from gptjax.config import GPTConfig, RunConfig
from gptjax.model import GPT, Execution

Array = jax.Array

CACHE = 8 * 2**20  # bytes; measured in docs/performance.md


def cudnn_attention(q_BTD: Array, k_BTD: Array, v_BTD: Array, drop: Any) -> Array:
    """Causal attention by cuDNN's flash kernel, which never writes the T x T weights to memory.

    Dropout on the weights is therefore not possible: use this kernel for models without dropout.
    """
    q, k, v = (x[:, :, None] for x in (q_BTD, k_BTD, v_BTD))  # one head: ours are vmapped
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
    return y[:, :, 0]


def compile_once_options(platform: str) -> dict[str, Any] | None:
    """`jax.jit`'s compiler options for a program that runs once, such as the initialization.

    On a CPU, LLVM's optimization takes longer than it saves in one run: it is half of the 2 s that
    compiling the initialization takes.
    """
    return {"xla_backend_optimization_level": 0} if platform == "cpu" else None


def suited(model: nn.Module, run_config: RunConfig, platform: str) -> nn.Module:
    """Returns the model with the execution that trains it fastest on this platform.

    On a GPU, that is cuDNN's attention if it is available; on a CPU in float32, cpu.py's products
    and attention.

    Args:
        model: a GPT; a rung of the lecture is returned unchanged.
        platform: `cpu`, `gpu` or `tpu`.
    """
    if not isinstance(model, GPT):
        return model
    execution = Execution()
    if not why_not_cudnn(run_config.model, platform):
        execution = Execution(cudnn_attention)
    elif platform == "cpu" and run_config.model.dtype == "float32":
        execution = Execution(cpu.attention, cpu.projection, cpu.product)
    # In JAX 0.10, some bfloat16 products have no CPU kernel. The others are slow.
    blocks = scan_blocks if run_config.scans_layers else None
    return model.clone(execution=execution._replace(remat=run_config.train.remat, blocks=blocks))


def describe_attention(model: nn.Module, platform: str) -> str:
    """Describes the attention that `suited` chose, and if it is not cuDNN's, why."""
    if not isinstance(model, GPT):
        return "plain"
    if model.execution.attention is cudnn_attention:
        return "cuDNN's"
    if model.execution.attention is cpu.attention:
        return "one block of queries at a time, for a CPU"
    return f"plain ({why_not_cudnn(model.config, platform)})"


def why_not_cudnn(model_config: GPTConfig, platform: str) -> str:
    """Why cuDNN's kernel cannot be used; empty if it can.

    The kernel needs a GPU, bfloat16, heads of a width that it supports, and no dropout on the
    weights, which it never stores. A trial finds out whether this GPU and this cuDNN support it.
    """
    if platform != "gpu":
        return f"JAX has no flash attention for a {platform}"
    if model_config.dtype != "bfloat16":
        return f"cuDNN's does not support {model_config.dtype}"
    if model_config.dropout > 0:
        return "cuDNN's does not support dropout"
    if model_config.head_size % 8 or model_config.head_size > 128:
        return f"cuDNN's supports heads of 8, 16, ... 128, not {model_config.head_size}"
    return "" if _cudnn_runs(model_config) else "cuDNN's does not run on this GPU"


def with_micro_batches(run_config: RunConfig, platform: str, parts: int = 1) -> RunConfig:
    """Returns the configuration with the micro-batch size that the function below chooses."""
    return run_config.replace(micro_batch_size=micro_batch_size(run_config, platform, parts))


def micro_batch_size(run_config: RunConfig, platform: str, parts: int = 1) -> int:
    """The best number of sequences to compute at once; 0 means the whole batch.

    XLA passes over a block's activations several times, at the speed of memory if they do not fit
    the cache. So on a CPU, this is the largest number for which a block's widest activation fits.
    The size of the cache is a constant here, so that a run has the same configuration on every
    machine.

    Args:
        parts: number of devices that divide the sequences; a divisor of the batch size.
    """
    model_config, batch_size = run_config.model, run_config.train.batch_size
    if platform != "cpu" or run_config.model_name != "gpt":
        return 0
    itemsize = jnp.dtype(model_config.dtype).itemsize
    widest = model_config.block_size * 4 * model_config.n_embd * itemsize
    most = min(batch_size, CACHE // widest * parts)
    fitting = (m for m in range(most, 0, -1) if batch_size % m == m % parts == 0)
    best = next(fitting, parts)
    return 0 if best == batch_size else best


def _cudnn_runs(model_config: GPTConfig) -> bool:
    """Tries whether cuDNN's kernel and its gradient compile and run, on one sequence."""
    x_BTD = jnp.zeros((1, model_config.block_size, model_config.head_size), jnp.bfloat16)

    def total(x_BTD: Array) -> Array:
        return cudnn_attention(x_BTD, x_BTD, x_BTD, None).astype(jnp.float32).sum()

    try:
        jax.block_until_ready(jax.jit(jax.grad(total))(x_BTD))
    except Exception:  # RuntimeError, ValueError or XlaRuntimeError, depending on the version
        return False
    return True
