"""What suits a backend: the kernels and products that a model is trained with, injected into it."""

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

    So nothing can be dropped of them: it suits models without dropout.
    """
    q, k, v = (x[:, :, None] for x in (q_BTD, k_BTD, v_BTD))  # its heads; ours are outside
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
    return y[:, :, 0]


def compile_once_options(platform: str) -> dict[str, Any] | None:
    """`jax.jit`'s compiler options for a program that runs once, as that of the initial values.

    On a CPU, what LLVM's optimization takes is then more than what it saves: of 2 s of compiling
    the initial values it is half.
    """
    return {"xla_backend_optimization_level": 0} if platform == "cpu" else None


def suited(model: nn.Module, run_config: RunConfig, platform: str) -> nn.Module:
    """The model with the execution that trains it fastest here.

    On a GPU, cuDNN's attention where it can be had; on a CPU, in float32, cpu.py's products and
    attention.

    Args:
        model: a GPT; a rung of the lecture stays as it is.
        platform: `cpu`, `gpu` or `tpu`.
    """
    if not isinstance(model, GPT):
        return model
    execution = Execution()
    if not why_not_cudnn(run_config.model, platform):
        execution = Execution(cudnn_attention)
    elif platform == "cpu" and run_config.model.dtype == "float32":
        execution = Execution(cpu.attention, cpu.projection, cpu.product)
    # Some bfloat16 products have no kernel on a CPU in JAX 0.10; it is slow there in any case.
    blocks = scan_blocks if run_config.scans_layers else None
    return model.clone(execution=execution._replace(remat=run_config.train.remat, blocks=blocks))


def describe_attention(model: nn.Module, platform: str) -> str:
    """The attention that `suited` gave a model, and why not cuDNN's, for a person."""
    if not isinstance(model, GPT):
        return "plain"
    if model.execution.attention is cudnn_attention:
        return "cuDNN's"
    if model.execution.attention is cpu.attention:
        return "one block of queries at a time, for a CPU"
    return f"plain ({why_not_cudnn(model.config, platform)})"


def why_not_cudnn(model_config: GPTConfig, platform: str) -> str:
    """Why cuDNN's kernel cannot be used; empty if it can.

    It needs a GPU, bfloat16, heads of a width that it supports, and no dropout on the weights,
    which it never stores. Whether this GPU and this version of cuDNN have it is found by trying.
    """
    if platform != "gpu":
        return f"JAX has no kernel for it on a {platform}"
    if model_config.dtype != "bfloat16":
        return f"cuDNN's takes no {model_config.dtype}"
    if model_config.dropout > 0:
        return "cuDNN's has no dropout"
    if model_config.head_size % 8 or model_config.head_size > 128:
        return f"cuDNN's takes heads of 8, 16, ... 128, not {model_config.head_size}"
    return "" if _cudnn_runs(model_config) else "cuDNN's does not run on this GPU"


def with_micro_batches(run_config: RunConfig, platform: str, parts: int = 1) -> RunConfig:
    """The configuration with as many sequences at once as `micro_batch_size` says."""
    return run_config.replace(micro_batch_size=micro_batch_size(run_config, platform, parts))


def micro_batch_size(run_config: RunConfig, platform: str, parts: int = 1) -> int:
    """How many sequences are best computed at once; 0 is the whole batch.

    On a CPU, as many as leave a block's widest activation in its cache: XLA goes over it several
    times, and over what does not fit at the speed of memory. It does not look at this machine's
    cache, so that a run's configuration is the same wherever it was started.

    Args:
        parts: how many devices divide them; a divisor of the batch.
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
    """Whether cuDNN's kernel and its gradient compile and run, tried on one sequence."""
    x_BTD = jnp.zeros((1, model_config.block_size, model_config.head_size), jnp.bfloat16)

    def total(x_BTD: Array) -> Array:
        return cudnn_attention(x_BTD, x_BTD, x_BTD, None).astype(jnp.float32).sum()

    try:
        jax.block_until_ready(jax.jit(jax.grad(total))(x_BTD))
    except Exception:  # by its version it raises RuntimeError, ValueError or XlaRuntimeError
        return False
    return True
