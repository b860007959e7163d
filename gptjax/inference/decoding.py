"""The program that generates: one jit that reads prompts with the cache and draws token by token.

The host calls it as often as it wants tokens, see generation.py. Nothing that a caller varies from
text to text is in its shapes, so each pair of a batch bucket and a prompt bucket compiles once.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.inference.cache import (
    Cache,
    decode_step,
    init_cache,
    last_logits,
    pack_heads,
    prefill,
    read_ring,
    slide,
    unpack_heads,
)
from gptjax.inference.sampling import Sampling, penalize, sample_token
from gptjax.model import GPT, config_of, forward

Array = jax.Array
Window = Literal["exact", "chunked"]

# Prompts are padded to the next of 16, 32, 64, ... or block_size, rows to a power of two.
SMALLEST_BUCKET = 16
# Tokens that one call can return, for each row.
ROOM = 256


class State(NamedTuple):
    """What goes from one call of the program to the next.

    Attributes:
        fresh: whether the prompts are still to be read.
        cache: the rows' windows; without keys and values for a module that has no cache.
        ring_BS: the tokens of the windows, each in its slot, as in the cache.
        logits_BV: of the next token.
        used_BV: whether a row's text has a token.
        length_B: of the whole prompts, in tokens.
        rows_B: which samples these are, for their keys.
    """

    fresh: Array
    cache: Cache
    ring_BS: Array
    logits_BV: Array
    used_BV: Array
    length_B: Array
    rows_B: Array


class Drawn(NamedTuple):
    """Tokens as they were drawn, K for each row.

    `logprob_BK` is each one's log probability under the model itself, at temperature 1 and before
    any filter; `best_ids_BKN` are the N likeliest tokens in its place and `best_logprobs_BKN`
    theirs.
    """

    ids_BK: Any
    logprobs_BK: Any
    best_ids_BKN: Any
    best_logprobs_BKN: Any


def _bucket(size: int, smallest: int, largest: int | None = None) -> int:
    """The power of two times `smallest` that holds `size`, and never more than `largest`."""
    bucket = smallest
    while bucket < size:
        bucket *= 2
    return bucket if largest is None else min(bucket, largest)


def start(model: nn.Module, prompts: list[np.ndarray], rows: list[int]) -> tuple[int, State]:
    """The prompts' bucket, and the state before they are read; the host makes it, no compiler.

    Args:
        rows: the number of each row, for its keys.
    """
    cfg = config_of(model)
    bucket = _bucket(max(map(len, prompts)), SMALLEST_BUCKET, cfg.block_size)
    B, S = _bucket(len(prompts), 1), cfg.block_size
    added = B - len(prompts)  # rows whose tokens are thrown away
    prompts, rows = prompts + prompts[:1] * added, rows + rows[:1] * added
    ring_BS, used_BV = np.zeros((B, S), np.int32), np.zeros((B, cfg.vocab_size), bool)
    for b, prompt in enumerate(prompts):
        kept = prompt[-S:]
        ring_BS[b, np.arange(-len(kept), 0) % S] = kept
        used_BV[b, prompt] = True
    shapes = jax.eval_shape(partial(init_cache, cfg, B))
    if not isinstance(model, GPT):
        shapes = shapes._replace(keys_HBDS=(), values_HBSD=())
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    length_B = np.array([len(prompt) for prompt in prompts], np.int32)
    fields: dict[str, Any] = {
        "fresh": np.bool_(True),
        "cache": zeros._replace(start_B=-np.minimum(length_B, bucket)),
        "ring_BS": ring_BS,
        "logits_BV": np.zeros((B, cfg.vocab_size), np.float32),
        "used_BV": used_BV,
        "length_B": length_B,
        "rows_B": np.array(rows, np.int32),
    }
    return bucket, State(**fields)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=5)
def advance(
    model: nn.Module,
    bucket: int,
    window: Window,
    alternatives: int,
    params: Any,
    state: State,
    until: Array,
    key: Array,
    sampling: Sampling,
) -> tuple[State, Drawn]:
    """Draws tokens up to the time `until`, at most ROOM of them.

    Args:
        bucket: tokens that the prompts are padded to.
    """
    B, S = state.ring_BS.shape
    cached = isinstance(model, GPT)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, state.rows_B)
    packed = pack_heads(params) if cached else params
    drawn = Drawn(
        jnp.zeros((B, ROOM), jnp.int32),
        jnp.zeros((B, ROOM)),
        jnp.zeros((B, ROOM, alternatives), jnp.int32),
        jnp.zeros((B, ROOM, alternatives)),
    )
    began = state.cache.clock

    def read_window(cache: Cache, ring_BS: Array, count: int) -> Array:
        """Logits of the next token from the windows' first `count` tokens, without the cache."""
        x_BT = read_ring(ring_BS, cache.start_B, count)
        return last_logits(forward(model, params, x_BT), cache.length_B)

    def read_prompts(state: State) -> State:
        cache = state.cache
        if cached:
            x_BT = read_ring(state.ring_BS, cache.start_B, bucket)
            logits_BV, cache = prefill(model, params, x_BT, cache.length_B)
        else:
            logits_BV = read_window(cache, state.ring_BS, bucket)
        return state._replace(fresh=jnp.bool_(False), cache=cache, logits_BV=logits_BV)

    def draw(state: State, drawn: Drawn) -> tuple[Array, State, Drawn]:
        clock = state.cache.clock
        logits_BV = penalize(state.logits_BV, state.used_BV, sampling)
        token_keys_B = jax.vmap(jax.random.fold_in)(keys_B, state.length_B + clock)
        token_B = sample_token(logits_BV, token_keys_B, sampling)
        drawn = _record(drawn, clock - began, token_B, state.logits_BV)
        return (
            token_B,
            state._replace(
                ring_BS=state.ring_BS.at[:, clock % S].set(token_B),
                used_BV=state.used_BV.at[jnp.arange(B), token_B].set(True),
            ),
            drawn,
        )

    def cached_step(carry: tuple[State, Drawn]) -> tuple[State, Drawn]:
        token_B, state, drawn = draw(*carry)
        logits_BV, cache = decode_step(model, unpack_heads(packed), state.cache, token_B)
        return state._replace(cache=cache, logits_BV=logits_BV), drawn

    def exact_step(carry: tuple[State, Drawn]) -> tuple[State, Drawn]:
        _, state, drawn = draw(*carry)
        clock = state.cache.clock + 1
        cache = state.cache._replace(
            clock=clock, start_B=jnp.maximum(state.cache.start_B, clock - S)
        )
        return (
            state._replace(cache=cache, logits_BV=read_window(cache, state.ring_BS, S)),
            drawn,
        )

    def make_room(state: State) -> State:
        full_B = state.cache.length_B >= S
        return state._replace(cache=slide(model, params, state.cache, state.ring_BS, full_B))

    def not_done(carry: tuple[State, Drawn]) -> Array:
        return carry[0].cache.clock < until

    def has_room(carry: tuple[State, Drawn]) -> Array:
        return (carry[0].cache.length_B < S).all()

    state = jax.lax.cond(state.fresh, read_prompts, lambda state: state, state)
    if cached and window == "chunked":
        is_full = (state.cache.length_B >= S).any()
        state = jax.lax.cond(is_full, make_room, lambda state: state, state)
    carry = (state, drawn)
    if cached:
        carry = jax.lax.while_loop(lambda c: not_done(c) & has_room(c), cached_step, carry)
    if cached and window == "chunked":
        return carry
    return jax.lax.while_loop(not_done, exact_step, carry)


def _record(drawn: Drawn, place: Array, token_B: Array, logits_BV: Array) -> Drawn:
    """Drawn with one more token; log probabilities only where alternatives were asked for."""
    ids_BK = drawn.ids_BK.at[:, place].set(token_B)
    alternatives = drawn.best_ids_BKN.shape[2]
    if alternatives == 0:
        return drawn._replace(ids_BK=ids_BK)
    logprobs_BV = nn.log_softmax(logits_BV, axis=-1)
    best_BN, best_ids_BN = jax.lax.top_k(logprobs_BV, alternatives)
    return Drawn(
        ids_BK,
        drawn.logprobs_BK.at[:, place].set(
            jnp.take_along_axis(logprobs_BV, token_B[:, None], axis=1)[:, 0]
        ),
        drawn.best_ids_BKN.at[:, place].set(best_ids_BN),
        drawn.best_logprobs_BKN.at[:, place].set(best_BN),
    )
