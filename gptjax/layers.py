"""The layers that a model is composed of, and the arithmetic of its attention."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from gptjax.config import GPTConfig

Array = jax.Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
}


def _all_but_bias(
    x: Array, kernel: Array, bias: Array | None, *, dtype: Any
) -> tuple[Array, Array, Array | None]:
    """Casts the inputs of a product to the computation's dtype, and leaves its bias as stored."""
    return *promote_dtype(x, kernel, dtype=dtype), bias


class Dense(nn.Dense):
    """`nn.Dense`, with its bias added in float32.

    The bias's gradient is a sum over all positions of a batch. Added in bfloat16, it would be
    summed in bfloat16 too, on a GPU with 8 bits for the sum of thousands of numbers.
    """

    promote_dtype: Any = _all_but_bias

    def __call__(self, inputs: Array) -> Array:
        return super().__call__(inputs).astype(self.dtype)


class Embed(nn.Embed):
    """`nn.Embed` that returns float32 rows, as they are stored, for the same reason.

    A common character's gradient is a sum over a tenth of the batch.
    """

    def __call__(self, inputs: Array) -> Array:
        return jnp.take(self.embedding, inputs, axis=0)


def dense(
    cfg: GPTConfig,
    features: int,
    *,
    use_bias: bool,
    name: str,
    residual: bool = False,
    product: Callable[..., Array] | None = None,
) -> Dense:
    """A linear layer that starts at N(0, init_std) with zero bias.

    With `residual`, it writes into the residual stream, and with `scaled_residual_init` starts
    smaller, so that the stream's variance does not grow with depth (GPT-2's report, section 2.3).
    """
    scale = (2 * cfg.n_layer) ** -0.5 if residual and cfg.scaled_residual_init else 1.0
    init = nn.initializers.normal(cfg.init_std * scale)
    return Dense(
        features,
        use_bias=use_bias,
        dtype=_dtype(cfg),
        kernel_init=init,
        dot_general=product,
        name=name,
    )


def embed(cfg: GPTConfig, size: int, name: str, make: Callable[..., Any] = Embed) -> Embed:
    """A table of `size` rows of width C, float32, that starts at N(0, init_std)."""
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
    """Dropout: sets some numbers of x to 0, and divides the others by the fraction kept.

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


class Past(NamedTuple):
    """Keys and values of positions before x, so that generation need not compute them again.

    The S slots may be in any order: keys and values already encode the token and its position. One
    head reads key_BSD and value_BSD; a block passes those of all its heads, with H in front.

    Attributes:
        seen_BS: whether a slot holds a position; the content of other slots is ignored.
    """

    key_BSD: Array
    value_BSD: Array
    seen_BS: Array


def causal_mask(T: int, S: int | None = None) -> Array:
    """(T, S) mask: True where one of the last T of S positions may look, at itself and before."""
    S = T if S is None else S
    return jnp.tril(jnp.ones((T, S), bool), k=S - T)


def attention_weights(q_BTD: Array, k_BSD: Array, past: Past | None = None) -> Array:
    """How much attention each position pays to itself and to each position before it.

    The dot product of query and key is divided by sqrt(D), so that at initialisation its variance
    does not grow with D and the softmax does not start out saturated ("Attention is all you need",
    equation 1; the lecture, "scaled self-attention").

    Args:
        q_BTD: queries of the last T of the S positions.
        k_BSD: keys of all S positions.
        past: more positions, before those.

    Returns:
        float32 weights_BTS, each row a distribution over the past and the present. With `past`,
        its slots come first.
    """

    def scores(k_BSD: Array, visible: Array) -> Array:
        scores_BTS = jnp.einsum("btd,bsd->bts", q_BTD, k_BSD).astype(jnp.float32)
        return jnp.where(visible, scores_BTS * q_BTD.shape[-1] ** -0.5, -jnp.inf)

    T, S = q_BTD.shape[-2], k_BSD.shape[-2]
    scores_BTS = scores(k_BSD, causal_mask(T, S)[None])
    if past is not None:
        before_BTS = scores(past.key_BSD, past.seen_BS[:, None])
        scores_BTS = jnp.concatenate([before_BTS, scores_BTS], axis=-1)
    return nn.softmax(scores_BTS, axis=-1)


def weighted_values(weights_BTS: Array, v_BSD: Array, past: Past | None = None) -> Array:
    """The values, averaged with the weights of `attention_weights`: (B, T, D)."""
    weights_BTS = weights_BTS.astype(v_BSD.dtype)
    if past is None:
        return jnp.einsum("bts,bsd->btd", weights_BTS, v_BSD)
    before_BTS, now_BTS = jnp.split(weights_BTS, [past.seen_BS.shape[-1]], axis=-1)
    return weighted_values(before_BTS, past.value_BSD) + weighted_values(now_BTS, v_BSD)


class TiedHead(nn.Module):
    """An output layer that reads the token table; its bias, if any, is its only parameter."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, wte: Embed) -> Array:
        logits_BTV = wte.attend(x_BTC)
        if self.config.head_bias:
            bias_V = self.param("bias", nn.initializers.zeros, (self.config.vocab_size,))
            logits_BTV = logits_BTV.astype(jnp.float32) + bias_V[None, None]
        return logits_BTV


def _dtype(cfg: GPTConfig) -> Any:
    return jnp.dtype(cfg.dtype)
