"""The jitted program that generates text: it reads prompts with the cache and draws tokens.

The host calls it whenever it wants more tokens; see generation.py. Its shapes depend only on the
batch bucket and the prompt bucket, so each pair of buckets compiles once.
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

# Prompts are padded to 16, 32, 64, ... or block_size tokens, and batches to a power of two.
SMALLEST_BUCKET = 16
# The most tokens per row that one call can return.
ROOM = 256


class Program(NamedTuple):
    """The program's static arguments: changing one compiles another program.

    Attributes:
        bucket: length to which the prompts are padded.
        window: see `generate`.
        alternatives: the N of `Drawn`.
    """

    model: nn.Module
    bucket: int
    window: Window
    alternatives: int

    @property
    def is_cached(self) -> bool:
        """Whether the module decodes with a cache. The lecture's rungs do not."""
        return isinstance(self.model, GPT)


class State(NamedTuple):
    """The state that one call of the program passes to the next.

    Attributes:
        fresh: True until the prompts have been read.
        cache: the rows' windows; it has no keys and values if the module decodes without a cache.
        ring_BS: the tokens in the windows, each in the same slot as in the cache.
        logits_BV: logits for the next token.
        used_BV: whether a row's text contains a token.
        length_B: lengths of the whole prompts, in tokens.
        rows_B: numbers of the samples, for their keys.
    """

    fresh: Array
    cache: Cache
    ring_BS: Array
    logits_BV: Array
    used_BV: Array
    length_B: Array
    rows_B: Array


class Drawn(NamedTuple):
    """Drawn tokens, K for each row.

    `logprobs_BK` are their log probabilities under the model itself, at temperature 1 and without
    filters. `best_ids_BKN` are the N likeliest tokens at each position, and `best_logprobs_BKN`
    their log probabilities.
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
    """Returns the program for these prompts, and its first state, built without compiling.

    Args:
        rows: the number of each row's sample, for its key.
    """
    # 1. Choose the shapes: pad rows and prompts to their buckets.
    cfg = config_of(model)
    bucket = _bucket(max(map(len, prompts)), SMALLEST_BUCKET, cfg.block_size)
    program = Program(model, bucket, window, min(alternatives, cfg.vocab_size))
    B, S = _bucket(len(prompts), 1), cfg.block_size
    added = B - len(prompts)  # padding rows, whose tokens are discarded
    prompts, rows = prompts + prompts[:1] * added, rows + rows[:1] * added

    # 2. Store the prompts. Their last token has time -1, so they end in the ring's last slot.
    ring_BS, used_BV = np.zeros((B, S), np.int32), np.zeros((B, cfg.vocab_size), bool)
    for b, prompt in enumerate(prompts):
        kept = prompt[-S:]
        ring_BS[b, np.arange(-len(kept), 0) % S] = kept
        used_BV[b, prompt] = True
    length_B = np.array([len(prompt) for prompt in prompts], np.int32)

    # 3. Make a cache of zeros, with windows that begin at the prompts.
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
    """The least power of two times `smallest` that holds `size`, but at most `largest`."""
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
    """Draws tokens until the clock is `until`, at most ROOM of them.

    Args:
        sampling: the result of `Sampling.traced()`.
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
        """Draws tokens until a window is full."""
        return jax.lax.while_loop(has_room, partial(steps.cached, packed), carry)

    def chunk(carry: _Carry) -> _Carry:
        state, drawn = carry
        is_full = (state.cache.length_B >= S).any()
        state = jax.lax.cond(is_full, steps.make_room, lambda state: state, state)
        return cached_steps((state, drawn))

    # 1. Read the prompts in the first call.
    carry = jax.lax.cond(state.fresh, steps.read_prompts, lambda state: state, state), carry[1]
    # 2. Decode with the cache: to the end if full windows are shortened, else until one is full.
    if program.is_cached and program.window == "chunked":
        return jax.lax.while_loop(not_done, chunk, carry)
    if program.is_cached:
        carry = cached_steps(carry)
    # 3. From then on, the window moves with each token, so cached keys and values are of no use.
    return jax.lax.while_loop(not_done, steps.exact, carry)


class _Steps(NamedTuple):
    """The steps of `advance`, and the values that they share.

    Attributes:
        keys_B: the rows' keys.
        began: the time of the first token that this call draws.
    """

    program: Program
    params: Any
    keys_B: Array
    began: Array
    sampling: Mapping[str, Array]

    def read_prompts(self, state: State) -> State:
        """Computes the logits after the prompts, and fills the cache with their keys and values."""
        cache, bucket = state.cache, self.program.bucket
        if self.program.is_cached:
            x_BT = read_ring(state.ring_BS, cache.start_B, bucket)
            logits_BV, cache = prefill(self.program.model, self.params, x_BT, cache.length_B)
        else:
            logits_BV = self.read_window(cache, state.ring_BS, bucket)
        return state._replace(fresh=jnp.bool_(False), cache=cache, logits_BV=logits_BV)

    def read_window(self, cache: Cache, ring_BS: Array, count: int) -> Array:
        """Logits for the next token from the windows' first `count` tokens, without the cache."""
        x_BT = read_ring(ring_BS, cache.start_B, count)
        return last_logits(forward(self.program.model, self.params, x_BT), cache.length_B)

    def draw(self, state: State, drawn: Drawn) -> tuple[Array, State, Drawn]:
        """Draws the next token of each row, puts it into the ring and records it."""
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
        """Draws one token with the cache.

        Args:
            packed: the parameters from `pack_heads`, computed outside the loop over tokens.
        """
        token_B, state, drawn = self.draw(*carry)
        params = unpack_heads(packed)
        logits_BV, cache = decode_step(self.program.model, params, state.cache, token_B)
        return state._replace(cache=cache, logits_BV=logits_BV), drawn

    def exact(self, carry: _Carry) -> _Carry:
        """Draws one token and re-encodes the whole window, because every position has moved."""
        _, state, drawn = self.draw(*carry)
        S = state.ring_BS.shape[1]
        clock = state.cache.clock + 1
        start_B = jnp.maximum(state.cache.start_B, clock - S)
        cache = state.cache._replace(clock=clock, start_B=start_B)
        logits_BV = self.read_window(cache, state.ring_BS, S)
        return state._replace(cache=cache, logits_BV=logits_BV), drawn

    def make_room(self, state: State) -> State:
        """Shortens the full windows."""
        full_B = state.cache.length_B >= state.ring_BS.shape[1]
        cache = slide(self.program.model, self.params, state.cache, state.ring_BS, full_B)
        return state._replace(cache=cache)


def _none_drawn(B: int, alternatives: int) -> Drawn:
    """Empty arrays for the tokens of one call."""
    return Drawn(
        jnp.zeros((B, ROOM), jnp.int32),
        jnp.zeros((B, ROOM)),
        jnp.zeros((B, ROOM, alternatives), jnp.int32),
        jnp.zeros((B, ROOM, alternatives)),
    )


def _record(drawn: Drawn, place: Array, token_B: Array, logits_BV: Array) -> Drawn:
    """Adds one token, and its log probabilities if the caller asked for alternatives."""
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
