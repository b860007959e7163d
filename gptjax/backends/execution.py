"""What suits a backend: the kernels and products that a model is trained with, injected into it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.backends import cpu
from gptjax.config import GPTConfig, RunConfig
from gptjax.model import GPT, Execution
from gptjax.training import Keys, TrainState

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


def start(
    init: Callable[[Array], TrainState], loop: Any, tokens: Array, keys: Keys, platform: str
) -> TrainState:
    """The state before the first update, made while the loop is compiled for it.

    Much of a compile keeps one core busy, so two at once are done sooner than one after the other
    (docs/performance.md). `jax.jit` keeps the loop's: the first call finds it.

    Args:
        init: a key to a state.
        loop: of `make_train_loop`, to be called with this state, these tokens and keys.
    """
    init = jax.jit(init, compiler_options=compile_once_options(platform))
    with ThreadPoolExecutor(1) as another:
        state = another.submit(init, keys.params)
        loop.lower(jax.eval_shape(init, keys.params), tokens, keys, 1).compile()
        return state.result()


def suited(model: nn.Module, run_config: RunConfig, platform: str) -> tuple[nn.Module, str]:
    """A model as it is best trained here, and what to say of its attention.

    On a CPU, in float32, products and attention are cpu.py's.

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
    remat = run_config.train.remat
    if not why:
        return model.clone(execution=Execution(cudnn_attention, remat=remat)), "cuDNN's"
    if platform == "cpu" and config.dtype == "float32":
        execution = Execution(cpu.attention, cpu.projection, cpu.product, remat)
        return model.clone(execution=execution), "in parts of the queries, for a CPU"
    # Some bfloat16 products have no kernel on a CPU in JAX 0.10; it is slow there in any case.
    return model.clone(execution=Execution(remat=remat)), f"plain ({why})"


def with_micro_batches(run_config: RunConfig, platform: str) -> RunConfig:
    """The configuration with as many sequences at once as `micro_batch_size` says."""
    return run_config.replace(micro_batch_size=micro_batch_size(run_config, platform))


def micro_batch_size(run_config: RunConfig, platform: str) -> int:
    """How many sequences are best computed at once; 0 is the whole batch.

    On a CPU, as many as leave a block's widest activation in its cache: XLA goes over it several
    times, and over what does not fit at the speed of memory. It does not look at this machine's
    cache, so that a run's configuration is the same wherever it was started.
    """
    config, batch_size = run_config.model, run_config.train.batch_size
    if platform != "cpu" or run_config.model_name != "gpt":
        return 0
    widest = config.block_size * 4 * config.n_embd * jnp.dtype(config.dtype).itemsize
    most = min(batch_size, CACHE // widest)
    best = next((m for m in range(most, 0, -1) if batch_size % m == 0), 1)
    return 0 if best == batch_size else best


def _runs(config: GPTConfig) -> bool:
    """Whether cuDNN's kernel and its gradient compile and run, tried on one sequence."""
    x_BTD = jnp.zeros((1, config.block_size, config.head_size), jnp.bfloat16)

    def total(x_BTD: Array) -> Array:
        return cudnn_attention(x_BTD, x_BTD, x_BTD, None).astype(jnp.float32).sum()

    try:
        jax.block_until_ready(jax.jit(jax.grad(total))(x_BTD))
    except Exception:  # by its version it raises RuntimeError, ValueError or XlaRuntimeError
        return False
    return True
