"""The loss of training: the cross entropy of the next token, in nats."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.model import GPT, forward

Array = jax.Array

# From this vocabulary on, `summed_loss` never has the logits of a whole batch in memory.
LARGE_VOCABULARY = 4096
# Logits computed at once, in bytes of float32: 800 tokens of GPT-2's vocabulary. Larger pieces take
# more memory; smaller ones read and write the gradient of the table more often.
PIECE_BYTES = 160 * 10**6
# GPUs and TPUs multiply matrices in tiles, and are slower where a size is not a multiple of them.
TILE = 128


def token_losses(logits_BTV: Array, y_BT: Array) -> Array:
    """Negative log probability of each target.

    Args:
        logits_BTV: float logits; the computation is float32.
        y_BT: int32 targets below V. Every id counts: there is no padding token.

    Returns:
        losses_BT, float32, nats.
    """
    logits_BTV = logits_BTV.astype(jnp.float32)
    target_BT = jnp.take_along_axis(logits_BTV, y_BT[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


def cross_entropy(logits_BTV: Array, y_BT: Array) -> Array:
    """Mean of `token_losses`: a float32 scalar, nats per token."""
    return token_losses(logits_BTV, y_BT).mean()


def summed_loss(
    model: nn.Module,
    params: Any,
    x_BT: Array,
    y_BT: Array,
    counts_BT: Array | None = None,
    dropout_key: Array | None = None,
) -> Array:
    """The sum of `token_losses` over the targets that count: a float32 scalar, nats.

    A GPT with a large vocabulary computes its logits in pieces: with GPT-2's vocabulary, 8,192
    tokens have 1.6 GB of logits, and the gradient is as large again. The result differs from the
    plain one only by rounding.

    Args:
        model: any module with the GPT's call signature.
        counts_BT: bool, the targets that count; None for all.
        dropout_key: None for no dropout.
    """
    if not isinstance(model, GPT) or model.config.vocab_size < LARGE_VOCABULARY:
        losses_BT = token_losses(forward(model, params, x_BT, dropout_key), y_BT)
        return jnp.sum(losses_BT, where=counts_BT)
    x_BTC = model.features(params, x_BT, dropout_key)
    table_VC, bias_V = padded_head(model, params)
    weights_BT = jnp.ones(y_BT.shape) if counts_BT is None else counts_BT.astype(jnp.float32)
    return _in_pieces(model, x_BTC, table_VC, bias_V, y_BT, weights_BT)


def padded_head(model: GPT, params: Any) -> tuple[Array, Array]:
    """The output layer as a table (V', C) and a bias (V',), V' the next multiple of TILE.

    A row beyond the vocabulary has the bias -inf, so its probability and gradient are exactly 0.
    Such rows exist only in memory: the parameters on disk and the optimizer's state have none.
    """
    cfg, gather = model.config, model.execution.gather or (lambda head: head)
    head = gather({name: params[name] for name in ("wte", "lm_head") if name in params})
    table_VC = head["wte"]["embedding"] if cfg.tie_embeddings else head["lm_head"]["kernel"].T
    bias_V = head["lm_head"]["bias"] if cfg.head_bias else jnp.zeros((cfg.vocab_size,))
    more = -cfg.vocab_size % TILE
    padded_V = jnp.pad(bias_V, (0, more), constant_values=-jnp.inf)
    return jnp.pad(table_VC, ((0, more), (0, 0))), padded_V


def _piece_loss(
    dtype: str, x_BTC: Array, table_VC: Array, bias_V: Array, y_BT: Array, weights_BT: Array
) -> Array:
    """The weighted sum of the losses, the logits computed as the model computes them.

    The bias is added in float32, so that its gradient is a sum in float32 (see layers.Dense).
    """
    x_BTC, table_VC = jnp.asarray(x_BTC, dtype), jnp.asarray(table_VC, dtype)
    logits_BTV = jnp.einsum("btc,vc->btv", x_BTC, table_VC) + bias_V[None, None]
    return jnp.sum(weights_BT * token_losses(logits_BTV, y_BT))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_pieces(
    model: GPT, x_BTC: Array, table_VC: Array, bias_V: Array, y_BT: Array, weights_BT: Array
) -> Array:
    """`_piece_loss` of a few positions of every sequence at a time."""

    def add(total: Array, piece: Any) -> tuple[Array, None]:
        x, y, weights = piece
        return total + _piece_loss(model.config.dtype, x, table_VC, bias_V, y, weights), None

    pieces = _cut(model, x_BTC, y_BT, weights_BT)
    return jax.lax.scan(add, jnp.zeros(()), pieces)[0]


def _forward(model: GPT, *arguments: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """The sum and its gradients, computed while a piece's logits are in memory: the backward pass
    only scales them, and no logits are computed twice.
    """

    def rows(
        x_BTC: Array, table_VC: Array, bias_V: Array, y_BT: Array, weights_BT: Array
    ) -> tuple[Array, Array, Array, Array]:
        gradient = jax.value_and_grad(partial(_piece_loss, model.config.dtype), (0, 1, 2))

        def add(sums: Any, piece: Any) -> tuple[Any, Array]:
            x, y, weights = piece
            loss, (dx, *ds) = gradient(x, table_VC, bias_V, y, weights)
            return jax.tree.map(jnp.add, sums, (loss, *ds)), dx

        zeros = (jnp.zeros(()), jnp.zeros_like(table_VC), jnp.zeros_like(bias_V))
        sums, dx = jax.lax.scan(add, zeros, _cut(model, x_BTC, y_BT, weights_BT))
        B, T, C = x_BTC.shape
        return *sums, dx.swapaxes(0, 1).reshape(B, -1, C)[:, :T]

    # Each device sums over its own rows, and the sums meet once, not once a piece.
    loss, dtable_VC, dbias_V, dx_BTC = (model.execution.by_rows or (lambda f: f))(rows)(*arguments)
    return loss, (dx_BTC, dtable_VC, dbias_V)


def _backward(model: GPT, gradients: Any, g: Array) -> tuple[Any, ...]:
    return *jax.tree.map(lambda d: (g * d).astype(d.dtype), gradients), None, None


_in_pieces.defvjp(_forward, _backward)


def _cut(model: GPT, x_BTC: Array, *arrays_BT: Array) -> Any:
    """Arrays of sequences cut along their positions: (pieces, B, T', ...).

    Padding to a whole number of pieces has weight 0.
    """
    B, T, _ = x_BTC.shape
    count = min(T, math.ceil(4 * B * T * model.config.vocab_size / PIECE_BYTES))

    def cut(a: Array) -> Array:
        a = jnp.pad(a, ((0, 0), (0, -T % count), *((0, 0),) * (a.ndim - 2)))
        return a.reshape(B, count, -1, *a.shape[2:]).swapaxes(0, 1)

    return jax.tree.map(cut, (x_BTC, *arrays_BT))


def bits_per_character(nats_per_token: float, characters_per_token: float = 1.0) -> float:
    """The same loss in bits, per character of text: comparable across tokenizers.

    Args:
        nats_per_token: a loss of this project.
        characters_per_token: 1 for the character tokenizer, else the text's average.
    """
    return nats_per_token / math.log(2) / characters_per_token


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """The same loss in bits per byte of UTF-8: comparable across tokenizers and languages.

    Args:
        nats_per_token: a loss of this project.
        bytes_per_token: the average over the text that was scored.
    """
    return nats_per_token / math.log(2) / bytes_per_token
