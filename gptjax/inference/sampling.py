"""From logits to the next token: penalty, temperature, top-k, top-p, min-p, and the draw.

In the order in which Hugging Face's `generate` applies them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.errors import ConfigError
from gptjax.fields import MAX_FLOAT

Array = jax.Array
EVERYTHING = 2**31 - 1


class Sampling(NamedTuple):
    """How a token is drawn. Traced values, so that changing one does not recompile."""

    temperature: Array
    top_k: Array
    top_p: Array
    min_p: Array
    repetition_penalty: Array


def make_sampling(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
) -> Sampling:
    """Holds the settings to their rules; None filters nothing.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens; more than the vocabulary means all.
        top_p: draw among the fewest likeliest tokens that together have probability top_p
            (nucleus sampling, Holtzman et al., "The curious case of neural text degeneration").
        min_p: draw among the tokens at least min_p times as probable as the likeliest (Nguyen et
            al., "Turning up the heat: min-p sampling").
        repetition_penalty: divides the positive logits of the tokens that the text has, and
            multiplies their negative ones (Keskar et al., "CTRL", section 4.1); 1 for none.

    Raises:
        ConfigError: a setting is out of its range.
    """
    if not 0 <= temperature <= MAX_FLOAT:
        raise ConfigError("temperature", temperature, "must be at least 0, and finite")
    if top_k is not None and top_k < 1:
        raise ConfigError("top_k", top_k, "must be at least 1; leave it out for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError("top_p", top_p, "must be above 0 and at most 1")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ConfigError("min_p", min_p, "must be at least 0 and at most 1")
    if not 0 < np.float32(repetition_penalty) <= MAX_FLOAT:
        raise ConfigError(
            "repetition_penalty", repetition_penalty, "must be above 0, and finite; 1 is none"
        )
    # numpy's numbers: JAX's would look for a device, before it is known that there is one.
    values: dict[str, Any] = {
        "temperature": np.float32(temperature),
        "top_k": np.int32(EVERYTHING if top_k is None else min(top_k, EVERYTHING)),
        "top_p": np.float32(1.0 if top_p is None else top_p),
        "min_p": np.float32(min_p or 0.0),
        "repetition_penalty": np.float32(repetition_penalty),
    }
    return Sampling(**values)


def penalize(logits_BV: Array, used_BV: Array, sampling: Sampling) -> Array:
    """Logits with those of the tokens in use made smaller.

    Args:
        used_BV: whether a row's text has a token.
    """
    penalty = sampling.repetition_penalty
    smaller_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(used_BV, smaller_BV, logits_BV)


def filter_logits(logits_BV: Array, sampling: Sampling) -> Array:
    """Logits over temperature, with -inf for the tokens that top-k, then top-p, then min-p drop.

    The likeliest token always stays. Of equal logits the lower id ranks first, so that top_k = 1
    is greedy, and exactly k tokens stay.
    """
    logits_BV = logits_BV / jnp.where(sampling.temperature > 0, sampling.temperature, 1)
    nothing = (sampling.top_k >= logits_BV.shape[-1]) & (sampling.top_p >= 1)
    nothing = nothing & (sampling.min_p <= 0)
    # Sorting a large vocabulary costs more than a small model's step.
    return jax.lax.cond(nothing, lambda x, _: x, _drop, logits_BV, sampling)


def _drop(logits_BV: Array, sampling: Sampling) -> Array:
    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    ranked_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    rank_1V = jnp.arange(logits_BV.shape[-1])[None]
    ranked_BV = jnp.where(rank_1V < sampling.top_k, ranked_BV, -jnp.inf)
    probability_BV = nn.softmax(ranked_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    stay_BV = (before_BV < sampling.top_p) & (rank_1V < sampling.top_k)
    stay_BV = stay_BV & (probability_BV >= sampling.min_p * probability_BV[:, :1])
    stay_BV = stay_BV | (rank_1V == 0)
    stay_BV = jnp.take_along_axis(stay_BV, jnp.argsort(order_BV, axis=-1), axis=-1)
    return jnp.where(stay_BV, logits_BV, -jnp.inf)


def sample_token(logits_BV: Array, keys_B: Array, sampling: Sampling) -> Array:
    """Draws one token for each row with its own key: (B,) int32."""
    filtered_BV = filter_logits(logits_BV, sampling)
    drawn_B = jax.vmap(jax.random.categorical)(keys_B, filtered_BV)
    greedy_B = jnp.argmax(logits_BV, axis=-1)
    return jnp.where(sampling.temperature > 0, drawn_B, greedy_B).astype(jnp.int32)
