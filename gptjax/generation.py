"""Sampling: filters of the next token's distribution, and `generate`, one jitted program.

Any Linen module with the GPT's call signature will do. Past block_size it conditions on the last
block_size tokens, as the lecture does.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.config import MAX_FLOAT
from gptjax.errors import ConfigError, InputError
from gptjax.model import config_of, forward

Array = jax.Array

# Lengths are rounded up to a multiple of this, so that prompts of many lengths share a compile.
LENGTH_STEP = 64

# A place in what is generated is an int32 on the device.
MAX_TOKENS = 2**31 - LENGTH_STEP


class Sampling(NamedTuple):
    """How a token is drawn. Traced values, so that changing one does not recompile."""

    temperature: Array
    top_k: Array
    top_p: Array


def check_sampling(
    max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Holds a sampler's settings to their rules.

    Raises:
        ConfigError: a setting is out of its range.
    """
    if max_new_tokens < 1:
        raise ConfigError("max_new_tokens", max_new_tokens, "must be at least 1")
    if max_new_tokens >= MAX_TOKENS:
        raise ConfigError("max_new_tokens", max_new_tokens, f"must be below {MAX_TOKENS}")
    if not 0 <= temperature <= MAX_FLOAT:
        raise ConfigError("temperature", temperature, "must be at least 0, and finite")
    if top_k is not None and top_k < 1:
        raise ConfigError("top_k", top_k, "must be at least 1; leave it out for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError("top_p", top_p, "must be above 0 and at most 1")


def make_sampling(temperature: float, top_k: int | None, top_p: float | None) -> Sampling:
    """Checked settings as traced values; None filters nothing."""
    everything = 2**31 - 1
    return Sampling(
        jnp.float32(temperature),
        jnp.int32(everything if top_k is None else min(top_k, everything)),
        jnp.float32(1.0 if top_p is None else top_p),
    )


def filter_logits(logits_BV: Array, sampling: Sampling) -> Array:
    """Logits over temperature, with -inf for the tokens that top-k, then top-p, leave out.

    The likeliest token always stays. Of equal logits the lower id ranks first, so that top_k = 1
    is greedy, and exactly k tokens stay.
    """
    logits_BV = logits_BV / jnp.where(sampling.temperature > 0, sampling.temperature, 1)
    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    ranked_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    rank_1V = jnp.arange(logits_BV.shape[-1])[None]
    ranked_BV = jnp.where(rank_1V < sampling.top_k, ranked_BV, -jnp.inf)
    probability_BV = nn.softmax(ranked_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    stay_BV = (before_BV < sampling.top_p) & (rank_1V < sampling.top_k) | (rank_1V == 0)
    stay_BV = jnp.take_along_axis(stay_BV, jnp.argsort(order_BV, axis=-1), axis=-1)
    return jnp.where(stay_BV, logits_BV, -jnp.inf)


def sample_token(logits_BV: Array, keys_B: Array, sampling: Sampling) -> Array:
    """Draws one token for each row with its own key: (B,) int32."""
    filtered_BV = filter_logits(logits_BV, sampling)
    drawn_B = jax.vmap(jax.random.categorical)(keys_B, filtered_BV)
    greedy_B = jnp.argmax(logits_BV, axis=-1)
    return jnp.where(sampling.temperature > 0, drawn_B, greedy_B).astype(jnp.int32)


def generate(
    model: nn.Module,
    params: Any,
    prompt_BT: Any,
    key: Array,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Array:
    """Continues prompts, token by token.

    Args:
        prompt_BT: (B, T) ids, T at least 1.
        key: a typed key. Row i draws from `fold_in(key, i)` and its token at position t from
            `fold_in` of that with t, so a row does not depend on the rows beside it.
        max_new_tokens: at least 1.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw among the k likeliest tokens; more than the vocabulary means all.
        top_p: draw among the fewest likeliest tokens that together have probability top_p
            (nucleus sampling, Holtzman et al., "The curious case of neural text degeneration").

    Returns:
        (B, T + max_new_tokens) int32: the prompts, then what follows.

    Raises:
        InputError: a setting is out of its range, or the prompt is empty.
    """
    check_sampling(max_new_tokens, temperature, top_k, top_p)
    sampling = make_sampling(temperature, top_k, top_p)
    prompt_BT = jnp.asarray(prompt_BT, jnp.int32)
    if prompt_BT.ndim != 2 or 0 in prompt_BT.shape:
        raise InputError(f"the prompt's shape {prompt_BT.shape} must be (B, T), T at least 1")
    T = prompt_BT.shape[1]
    end = T + max_new_tokens
    room = -(-end // LENGTH_STEP) * LENGTH_STEP
    tokens_BN = jnp.pad(prompt_BT, ((0, 0), (0, room - T)))
    return _generate(model, params, tokens_BN, jnp.int32(T), jnp.int32(end), key, sampling)[:, :end]


@partial(jax.jit, static_argnums=0)
def _generate(
    model: nn.Module,
    params: Any,
    tokens_BN: Array,
    start: Array,
    end: Array,
    key: Array,
    sampling: Sampling,
) -> Array:
    """Fills positions start to end - 1 of `tokens_BN`, each from the window before it."""
    B, N = tokens_BN.shape
    window = min(N, config_of(model).block_size)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(B))

    def fill(n: Array, tokens_BN: Array) -> Array:
        # Tokens after n are in the window while it is not full. Causality keeps them out of the
        # logits that are read, those of the window's last known token.
        first = jnp.maximum(n - window, 0)
        x_BT = jax.lax.dynamic_slice_in_dim(tokens_BN, first, window, axis=1)
        logits_BTV = forward(model, params, x_BT)
        logits_BV = jax.lax.dynamic_index_in_dim(logits_BTV, n - first - 1, 1, keepdims=False)
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, n)
        return tokens_BN.at[:, n].set(sample_token(logits_BV, step_keys_B, sampling))

    return jax.lax.fori_loop(start, end, fill, tokens_BN)
