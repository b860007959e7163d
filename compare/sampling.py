"""The loop with which Linen, NNX and plain JAX generate text, with or without a KV cache.

All three use this loop, so their sampling differs only in how a model is called. Each passes a
`Reader`. NNX and plain JAX build theirs with `reader`, which has its own cache; Linen's uses
gptjax.inference.cache.

Arrays carry their shape in their name: Batch, Time, N tokens in total, S cache slots, Heads, D per
head, Vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Past(NamedTuple):
    """One block's keys and values at earlier positions, in S slots; `seen_S` marks the used ones.

    Keys are transposed, as the product with a query reads them.
    """

    key_HBDS: Array
    value_HBSD: Array
    seen_S: Array


class Cache(NamedTuple):
    """Keys and values of all positions so far, one array for each block; passed in and out."""

    keys_HBDS: list[Array]
    values_HBSD: list[Array]


class Reader(NamedTuple):
    """How a design reads tokens with a set of weights.

    Attributes:
        whole: (weights, x_BT) to logits_BTV, without a cache.
        prefill: (weights, prompt_BT) to the logits_BV after the prompt, and a cache.
        decode: (weights, cache, token_B, n) to the logits_BV after the token at position n, and
            the cache with that token added.
    """

    whole: Callable[[Any, Array], Array]
    prefill: Callable[[Any, Array], tuple[Array, Any]]
    decode: Callable[[Any, Any, Array, Array], tuple[Array, Any]]


class Settings(NamedTuple):
    """The settings of a call of `generate`. Hashable, so it can be a static argument.

    Attributes:
        max_new_tokens: number of tokens to generate.
        temperature: 0 is greedy.
        cached: keep keys and values while they fit into the context. Otherwise, and beyond the
            context, each token takes a forward pass over its whole window, as in the lecture.
        pack: (pack, unpack), which change the layout of the weights for the loop; None keeps it.
    """

    max_new_tokens: int
    temperature: float = 1.0
    cached: bool = True
    pack: tuple[Callable[[Any], Any], Callable[[Any], Any]] | None = None


def sample(
    reader: Reader, weights: Any, prompt_BT: Array, key: Array, block_size: int, settings: Settings
) -> Array:
    """The prompts and the new tokens, (B, T + max_new_tokens). Call this inside a jit."""
    pack, unpack = settings.pack or (lambda weights: weights, lambda weights: weights)
    packed, T = pack(weights), prompt_BT.shape[1]
    N = T + settings.max_new_tokens
    W = min(N, block_size)  # the longest window

    def draw(n: Array, logits_BV: Array) -> Array:
        if settings.temperature == 0:
            return logits_BV.argmax(-1)
        logits_BV = logits_BV / settings.temperature
        return jax.random.categorical(jax.random.fold_in(key, n), logits_BV)

    def with_cache(n: Array, carry: Any) -> Any:
        tokens_BN, cache, logits_BV = carry
        token_B = draw(n, logits_BV)
        logits_BV, cache = reader.decode(unpack(packed), cache, token_B, n)
        return tokens_BN.at[:, n].set(token_B), cache, logits_BV

    def without_cache(n: Array, tokens_BN: Array) -> Array:
        """Reads a window of the full length. The tokens after position n do not matter."""
        first = jnp.maximum(n - W, 0)
        x_BT = jax.lax.dynamic_slice_in_dim(tokens_BN, first, W, axis=1)
        logits_BTV = reader.whole(unpack(packed), x_BT)
        logits_BV = jax.lax.dynamic_index_in_dim(logits_BTV, n - first - 1, 1, keepdims=False)
        return tokens_BN.at[:, n].set(draw(n, logits_BV))

    tokens_BN, begin = jnp.pad(prompt_BT, ((0, 0), (0, settings.max_new_tokens))), T
    if settings.cached and T < block_size:
        logits_BV, cache = reader.prefill(weights, prompt_BT)
        tokens_BN, _, _ = jax.lax.fori_loop(T, W, with_cache, (tokens_BN, cache, logits_BV))
        begin = W
    if begin < N:
        tokens_BN = jax.lax.fori_loop(begin, N, without_cache, tokens_BN)
    return tokens_BN


def reader(run: Callable[..., tuple[Array, list[tuple[Array, Array]]]], slots: int) -> Reader:
    """Makes a Reader with a cache of `slots` positions.

    Args:
        run: (weights, x_BT, past, start) to the logits of x, whose first token is at position
            `start`, and each block's keys and values of x, (H, B, T, D). `past` is None, or a Past
            for each block.
    """

    def prefill(weights: Any, prompt_BT: Array) -> tuple[Array, Cache]:
        logits_BTV, kv = run(weights, prompt_BT, None, 0)
        room = ((0, 0), (0, 0), (0, slots - prompt_BT.shape[1]), (0, 0))
        keys = [jnp.pad(key, room).swapaxes(-1, -2) for key, _ in kv]
        return logits_BTV[:, -1], Cache(keys, [jnp.pad(value, room) for _, value in kv])

    def decode(weights: Any, cache: Cache, token_B: Array, n: Array) -> tuple[Array, Cache]:
        seen_S = jnp.arange(slots) < n
        past = [Past(key, value, seen_S) for key, value in zip(*cache, strict=True)]
        logits_BTV, kv = run(weights, token_B[:, None], past, n)
        # The minimum is always 0, but XLA knows that only at the end. So it writes to the cache in
        # place, after its last read. Otherwise it would copy the whole cache for each token.
        slot = n + jnp.minimum(jnp.argmax(logits_BTV), 0)

        def write(old: Array, new: Array, axis: int) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis)

        keys, values = [], []
        for old, (key, value) in zip(past, kv, strict=True):
            keys.append(write(old.key_HBDS, key.swapaxes(-1, -2), 3))
            values.append(write(old.value_HBSD, value, 2))
        return logits_BTV[:, 0], Cache(keys, values)

    def whole(weights: Any, x_BT: Array) -> Array:
        return run(weights, x_BT, None, 0)[0]

    return Reader(whole, prefill, decode)


def attend(q_HBTD: Array, k_HBTD: Array, v_HBTD: Array, past: Past) -> Array:
    """Attention of one new token to itself and to the past, (H, B, 1, D); no dropout."""
    scale = q_HBTD.shape[-1] ** -0.5
    before_HBTS = jnp.einsum("hbtd,hbds->hbts", q_HBTD, past.key_HBDS).astype(jnp.float32)
    before_HBTS = jnp.where(past.seen_S[None, None, None], before_HBTS * scale, -jnp.inf)
    now_HBTT = jnp.einsum("hbtd,hbsd->hbts", q_HBTD, k_HBTD).astype(jnp.float32) * scale
    weights_HBTS = jax.nn.softmax(jnp.concatenate([before_HBTS, now_HBTT], axis=-1))
    weights_HBTS = weights_HBTS.astype(v_HBTD.dtype)
    before_HBTS, now_HBTT = jnp.split(weights_HBTS, [past.seen_S.shape[0]], axis=-1)
    return jnp.einsum("hbts,hbsd->hbtd", before_HBTS, past.value_HBSD) + jnp.einsum(
        "hbts,hbsd->hbtd", now_HBTT, v_HBTD
    )
