"""What training makes small: the cross entropy of the next token, in nats."""

import math

import jax
import jax.numpy as jnp

Array = jax.Array


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


def bits_per_character(nats_per_token: float, characters_per_token: float = 1.0) -> float:
    """The same loss in bits, per character of text: comparable across tokenizers.

    Args:
        nats_per_token: a loss of this project.
        characters_per_token: 1 for the character tokenizer, else the text's average.
    """
    return nats_per_token / math.log(2) / characters_per_token
