"""The layers that a model is composed of, as its configuration initialises and computes them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.config import GPTConfig

Array = jax.Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
}


def dense(
    cfg: GPTConfig,
    features: int,
    *,
    use_bias: bool,
    name: str,
    residual: bool = False,
    product: Callable[..., Array] | None = None,
) -> nn.Dense:
    """A linear layer that starts at N(0, init_std) with zero bias.

    With `residual`, it writes into the residual stream, and with `scaled_residual_init` starts
    smaller, so that the stream's variance does not grow with depth (GPT-2's report, section 2.3).
    """
    scale = (2 * cfg.n_layer) ** -0.5 if residual and cfg.scaled_residual_init else 1.0
    init = nn.initializers.normal(cfg.init_std * scale)
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=_dtype(cfg),
        kernel_init=init,
        dot_general=product,
        name=name,
    )


def embed(cfg: GPTConfig, size: int, name: str, make: Callable[..., Any] = nn.Embed) -> nn.Embed:
    """A table of `size` rows of width C that starts at N(0, init_std)."""
    init = nn.initializers.normal(cfg.init_std)
    return make(size, cfg.n_embd, dtype=_dtype(cfg), embedding_init=init, name=name)


def layer_norm(cfg: GPTConfig, name: str) -> nn.LayerNorm:
    """PyTorch's LayerNorm: epsilon 1e-5, and the variance in two passes, without cancellation."""
    return nn.LayerNorm(
        epsilon=1e-5,
        use_bias=cfg.ln_bias,
        use_fast_variance=False,
        dtype=_dtype(cfg),
        name=name,
    )


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Dropout: sets some numbers of x to 0, and divides the others by the share that is kept.

    Each number takes 16 random bits, where `nn.Dropout` takes 32: on a CPU, Threefry's bits are an
    eighth of a step (docs/performance.md). The rate is exact to 1 / 65536. The bits are drawn row
    by row, so that each device of a mesh draws only those of its own rows.

    Args:
        key: a typed key; None drops nothing.
    """
    if key is None or rate == 0:
        return x
    kept = max(1, round((1 - rate) * 2**16))  # of 65536
    *rows, last = x.shape
    words = jax.random.bits(key, (*rows, -(-last // 2)), jnp.uint32)
    halves = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., :last]
    return jnp.where(halves < kept, x / (kept / 2**16), jnp.zeros_like(x))


class TiedHead(nn.Module):
    """An output layer that reads the token table; its bias, if any, is its only parameter."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, wte: nn.Embed) -> Array:
        logits_BTV = wte.attend(x_BTC)
        if self.config.head_bias:
            bias_V = self.param("bias", nn.initializers.zeros, (self.config.vocab_size,))
            logits_BTV = logits_BTV + bias_V.astype(logits_BTV.dtype)[None, None]
        return logits_BTV


def _dtype(cfg: GPTConfig) -> Any:
    return jnp.dtype(cfg.dtype)
