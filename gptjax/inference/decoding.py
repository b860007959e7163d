"""The program that generates: one jit that reads prompts with the cache and draws token by token.

The host calls it as often as it wants tokens, see generation.py. Nothing that a caller varies from
text to text is in its shapes, so each pair of a batch bucket and a prompt bucket compiles once.
"""

from collections.abc import Mapping
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
from gptjax.inference.sampling import penalize, sample_token
from gptjax.model import GPT, config_of, forward

Array = jax.Array
Window = Literal["exact", "chunked"]

# Prompts are padded to the next of 16, 32, 64, ... or block_size, rows to a power of two.
SMALLEST_BUCKET = 16
# Tokens that one call can return, for each row.
ROOM = 256


class Program(NamedTuple):
    """The program's static arguments: changing one compiles another program.

    Attributes:
        bucket: tokens that the prompts are padded to.
        window: see `generate`.
        alternatives: N of `Drawn`.
    """

    model: nn.Module
    bucket: int
    window: Window
    alternatives: int

    @property
    def is_cached(self) -> bool:
        """Whether the module has a cache: a rung of the lecture has none."""
        return isinstance(self.model, GPT)


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


_Carry = tuple[State, Drawn]


def prepare(
    model: nn.Module,
    prompts: list[np.ndarray],
    rows: list[int],
    window: Window,
    alternatives: int,
) -> tuple[Program, State]:
    """The program for these prompts, and its first state; built on the host, without compiling.

    Args:
        rows: the number of each row, for its keys.
    """
    # 1. Shapes: rows and prompts padded to their buckets.
    cfg = config_of(model)
    bucket = _bucket(max(map(len, prompts)), SMALLEST_BUCKET, cfg.block_size)
    program = Program(model, bucket, window, min(alternatives, cfg.vocab_size))
    B, S = _bucket(len(prompts), 1), cfg.block_size
    added = B - len(prompts)  # rows whose tokens are thrown away
    prompts, rows = prompts + prompts[:1] * added, rows + rows[:1] * added

    # 2. The prompts' tokens. Their last has the time -1, so theirs are the last slots of the ring.
    ring_BS, used_BV = np.zeros((B, S), np.int32), np.zeros((B, cfg.vocab_size), bool)
    for b, prompt in enumerate(prompts):
        kept = prompt[-S:]
        ring_BS[b, np.arange(-len(kept), 0) % S] = kept
        used_BV[b, prompt] = True
    length_B = np.array([len(prompt) for prompt in prompts], np.int32)

    # 3. A cache of zeros, in which the windows begin with the prompts.
    shapes = jax.eval_shape(partial(init_cache, cfg, B))
    if not program.is_cached:
        shapes = shapes._replace(keys_HBDS=(), values_HBSD=())
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    fields: dict[str, Any] = {
        "fresh": np.bool_(True),
        "cache": zeros._replace(start_B=-np.minimum(length_B, bucket)),
        "ring_BS": ring_BS,
        "logits_BV": np.zeros((B, cfg.vocab_size), np.float32),
        "used_BV": used_BV,
        "length_B": length_B,
        "rows_B": np.array(rows, np.int32),
    }
    return program, State(**fields)


def _bucket(size: int, smallest: int, largest: int | None = None) -> int:
    """The power of two times `smallest` that holds `size`, and never more than `largest`."""
    bucket = smallest
    while bucket < size:
        bucket *= 2
    return bucket if largest is None else min(bucket, largest)


@partial(jax.jit, static_argnames="program", donate_argnames="state")
def advance(
    program: Program,
    params: Any,
    state: State,
    until: Array,
    key: Array,
    sampling: Mapping[str, Array],
) -> tuple[State, Drawn]:
    """Draws tokens up to the time `until`, at most ROOM of them.

    Args:
        sampling: `Sampling.traced()`.
    """
    B, S = state.ring_BS.shape
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, state.rows_B)
    steps = _Steps(program, params, keys_B, state.cache.clock, sampling)
    packed = pack_heads(params) if program.is_cached else params
    carry = state, _none_drawn(B, program.alternatives)

    def not_done(carry: _Carry) -> Array:
        return carry[0].cache.clock < until

    def has_room(carry: _Carry) -> Array:
        return not_done(carry) & (carry[0].cache.length_B < S).all()

    def cached_steps(carry: _Carry) -> _Carry:
        """Until a window is full."""
        return jax.lax.while_loop(has_room, partial(steps.cached, packed), carry)

    def chunk(carry: _Carry) -> _Carry:
        state, drawn = carry
        is_full = (state.cache.length_B >= S).any()
        state = jax.lax.cond(is_full, steps.make_room, lambda state: state, state)
        return cached_steps((state, drawn))

    # 1. The prompts.
    carry = jax.lax.cond(state.fresh, steps.read_prompts, lambda state: state, state), carry[1]
    # 2. With the cache, as far as it goes: to the end if windows are shortened when they are full.
    if program.is_cached and program.window == "chunked":
        return jax.lax.while_loop(not_done, chunk, carry)
    if program.is_cached:
        carry = cached_steps(carry)
    # 3. Where the window moves with each token, no key or value of the last step is of use.
    return jax.lax.while_loop(not_done, steps.exact, carry)


class _Steps(NamedTuple):
    """The parts of `advance`, and what they share.

    Attributes:
        keys_B: of the rows.
        began: the time of the first token that this call draws.
    """

    program: Program
    params: Any
    keys_B: Array
    began: Array
    sampling: Mapping[str, Array]

    def read_prompts(self, state: State) -> State:
        """The logits after the prompts, and the cache with their keys and values."""
        cache, bucket = state.cache, self.program.bucket
        if self.program.is_cached:
            x_BT = read_ring(state.ring_BS, cache.start_B, bucket)
            logits_BV, cache = prefill(self.program.model, self.params, x_BT, cache.length_B)
        else:
            logits_BV = self.read_window(cache, state.ring_BS, bucket)
        return state._replace(fresh=jnp.bool_(False), cache=cache, logits_BV=logits_BV)

    def read_window(self, cache: Cache, ring_BS: Array, count: int) -> Array:
        """Logits of the next token from the windows' first `count` tokens, without the cache."""
        x_BT = read_ring(ring_BS, cache.start_B, count)
        return last_logits(forward(self.program.model, self.params, x_BT), cache.length_B)

    def draw(self, state: State, drawn: Drawn) -> tuple[Array, State, Drawn]:
        """The next token of each row, put into the ring and recorded."""
        B, S = state.ring_BS.shape
        clock = state.cache.clock
        logits_BV = penalize(state.logits_BV, state.used_BV, self.sampling)
        token_keys_B = jax.vmap(jax.random.fold_in)(self.keys_B, state.length_B + clock)
        token_B = sample_token(logits_BV, token_keys_B, self.sampling)
        drawn = _record(drawn, clock - self.began, token_B, state.logits_BV)
        state = state._replace(
            ring_BS=state.ring_BS.at[:, clock % S].set(token_B),
            used_BV=state.used_BV.at[jnp.arange(B), token_B].set(True),
        )
        return token_B, state, drawn

    def cached(self, packed: Any, carry: _Carry) -> _Carry:
        """One token, with the cache.

        Args:
            packed: the parameters by `pack_heads`, outside of the loop over tokens.
        """
        token_B, state, drawn = self.draw(*carry)
        params = unpack_heads(packed)
        logits_BV, cache = decode_step(self.program.model, params, state.cache, token_B)
        return state._replace(cache=cache, logits_BV=logits_BV), drawn

    def exact(self, carry: _Carry) -> _Carry:
        """One token from the whole window: it has moved, and with it every position."""
        _, state, drawn = self.draw(*carry)
        S = state.ring_BS.shape[1]
        clock = state.cache.clock + 1
        start_B = jnp.maximum(state.cache.start_B, clock - S)
        cache = state.cache._replace(clock=clock, start_B=start_B)
        logits_BV = self.read_window(cache, state.ring_BS, S)
        return state._replace(cache=cache, logits_BV=logits_BV), drawn

    def make_room(self, state: State) -> State:
        """Shortens the windows that are full."""
        full_B = state.cache.length_B >= state.ring_BS.shape[1]
        cache = slide(self.program.model, self.params, state.cache, state.ring_BS, full_B)
        return state._replace(cache=cache)


def _none_drawn(B: int, alternatives: int) -> Drawn:
    """Room for the tokens of one call."""
    return Drawn(
        jnp.zeros((B, ROOM), jnp.int32),
        jnp.zeros((B, ROOM)),
        jnp.zeros((B, ROOM, alternatives), jnp.int32),
        jnp.zeros((B, ROOM, alternatives)),
    )


def _record(drawn: Drawn, place: Array, token_B: Array, logits_BV: Array) -> Drawn:
    """Drawn with one more token; log probabilities only where alternatives were asked for."""
    ids_BK = drawn.ids_BK.at[:, place].set(token_B)
    alternatives = drawn.best_ids_BKN.shape[2]
    if alternatives == 0:
        return drawn._replace(ids_BK=ids_BK)
    logprobs_BV = nn.log_softmax(logits_BV, axis=-1)
    logprob_B = jnp.take_along_axis(logprobs_BV, token_B[:, None], axis=1)[:, 0]
    best_BN, best_ids_BN = jax.lax.top_k(logprobs_BV, alternatives)
    return Drawn(
        ids_BK,
        drawn.logprobs_BK.at[:, place].set(logprob_B),
        drawn.best_ids_BKN.at[:, place].set(best_ids_BN),
        drawn.best_logprobs_BKN.at[:, place].set(best_BN),
    )
