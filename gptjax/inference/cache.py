"""The KV cache: a GPT's keys and values for the tokens so far, a pytree passed in and out.

`prefill` reads prompts, `decode_step` adds a token to each row, and `slide` makes room when a
window is full. All three are pure functions. The model computes the attention; this module decides
only which keys and values are kept, and where.

A clock counts the decoded tokens, and is the same for every row. Row b's tokens have the times
start_B[b] to clock - 1. So rows of different lengths can be decoded together: their newest tokens
share a slot, which is time mod S. S is block_size. A slot is reused once its token has left every
window.

Example: S = 4, and a prompt has 3 tokens. Their times are -3, -2 and -1, and their slots 1, 2 and
3; start is -3 and clock 0. The next token has time 0 and slot 0; clock is now 1, and the window is
full. `slide` then drops its older half: start is -1, and the token of time 1 takes slot 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.config import GPTConfig
from gptjax.model import Past, config_of

Array = jax.Array


class Cache(NamedTuple):
    """Keys and values in each row's window of S slots, one array for each block.

    Attributes:
        keys_HBDS: transposed, as the product with a query reads them: 10 % faster on a CPU.
        values_HBSD: in the order in which the product with the attention weights reads them.
        clock: int32, the time of the next token.
        start_B: int32, the time of the first token in each row's window.
    """

    keys_HBDS: tuple[Array, ...]
    values_HBSD: tuple[Array, ...]
    clock: Array
    start_B: Array

    @property
    def length_B(self) -> Array:
        """The number of tokens in each row's window."""
        return self.clock - self.start_B


def init_cache(model_config: GPTConfig, batch: int, dtype: Any = None) -> Cache:
    """Makes an empty cache for `batch` rows.

    Args:
        dtype: dtype of keys and values; None means the dtype of the computation.
    """
    dtype = jnp.dtype(dtype or model_config.dtype)
    H, S, D = model_config.n_head, model_config.block_size, model_config.head_size
    return Cache(
        tuple(jnp.zeros((H, batch, D, S), dtype) for _ in range(model_config.n_layer)),
        tuple(jnp.zeros((H, batch, S, D), dtype) for _ in range(model_config.n_layer)),
        jnp.int32(0),
        jnp.zeros(batch, jnp.int32),
    )


def prefill(
    model: nn.Module, params: Any, prompt_BT: Array, length_B: Array | None = None
) -> tuple[Array, Cache]:
    """Reads whole prompts at once.

    Args:
        prompt_BT: int32 ids, with T at most block_size. Each row begins with its prompt; the ids
            after the prompt are ignored.
        length_B: the length of each prompt, from 1 to T; None means T.

    Returns:
        logits_BV for the token after each prompt, float32, and the cache for `decode_step`.
    """
    B, T = prompt_BT.shape
    cfg = config_of(model)
    if length_B is None:
        length_B = jnp.full(B, T, jnp.int32)
    logits_BTV, kv = _forward(model, params, prompt_BT)
    cache = init_cache(cfg, B)._replace(start_B=-length_B)
    cache = _place(cache, kv, length_B, jnp.ones(B, bool))
    return last_logits(logits_BTV, length_B), cache


def decode_step(model: nn.Module, params: Any, cache: Cache, token_B: Array) -> tuple[Array, Cache]:
    """Adds one token to each row. Every row must have room; see `slide`.

    Returns:
        logits_BV for the next token, float32, and the cache with the token added.
    """
    # 1. The token may see the slots whose times are in its row's window.
    S = config_of(model).block_size
    seen_BS = _time_of_slots(cache.clock, S)[None] >= cache.start_B[:, None]
    past = tuple(
        Past(keys.swapaxes(-1, -2), values, seen_BS)
        for keys, values in zip(cache.keys_HBDS, cache.values_HBSD, strict=True)
    )
    logits_BTV, kv = _forward(model, params, token_B[:, None], past)
    # 2. Write the token's own key and value into the slot of its time.
    # The minimum is always 0, but XLA cannot know that before it has computed the logits. So it
    # writes in place after its last read of the cache, and need not copy the cache twice per token.
    slot = cache.clock % S + jnp.minimum(jnp.argmax(logits_BTV), 0)
    write = jax.lax.dynamic_update_slice_in_dim
    new = Cache(
        tuple(
            write(old, k.swapaxes(-1, -2), slot, axis=3)
            for old, (k, _) in zip(cache.keys_HBDS, kv, strict=True)
        ),
        tuple(
            write(old, v, slot, axis=2) for old, (_, v) in zip(cache.values_HBSD, kv, strict=True)
        ),
        cache.clock + 1,
        cache.start_B,
    )
    return logits_BTV[:, 0], new


def slide(model: nn.Module, params: Any, cache: Cache, ring_BS: Array, full_B: Array) -> Cache:
    """Shortens the windows of some rows to their newer half, block_size // 2 tokens.

    Positions are counted from the start of the window, and keys and values depend on them. So the
    half that stays is recomputed, once for the next block_size // 2 tokens.

    Args:
        ring_BS: the tokens, each in its slot.
        full_B: the rows to shorten; their windows must be full.
    """
    T = config_of(model).block_size // 2
    half_B = jnp.full_like(cache.start_B, T)
    cache = cache._replace(start_B=jnp.where(full_B, cache.clock - T, cache.start_B))
    if T == 0:
        return cache
    _, kv = _forward(model, params, read_ring(ring_BS, cache.clock - half_B, T))
    return _place(cache, kv, half_B, full_B)


def read_ring(ring_BS: Array, start_B: Array, count: int) -> Array:
    """Reads `count` tokens of each row, from the time start_B on: (B, count)."""
    slots_BT = (start_B[:, None] + jnp.arange(count)[None]) % ring_BS.shape[1]
    return jnp.take_along_axis(ring_BS, slots_BT, axis=1)


def last_logits(logits_BTV: Array, length_B: Array) -> Array:
    """The logits after each row's last token: (B, V)."""
    return jnp.take_along_axis(logits_BTV, length_B[:, None, None] - 1, axis=1)[:, 0]


def pack_heads(params: Any) -> Any:
    """Puts the heads' matrices side by side: (H, C, D) becomes (C, H, D).

    One product then computes all heads. Otherwise XLA would rearrange the matrices for every token.
    """
    return jax.lax.optimization_barrier(_swap_heads(params))


def unpack_heads(packed: Any) -> Any:
    """The inverse of `pack_heads`. Inside a jit it costs nothing."""
    return _swap_heads(packed)


def _swap_heads(params: Any) -> Any:
    return jax.tree.map(lambda x: x.swapaxes(0, 1) if x.ndim == 3 else x, params)


def _forward(
    model: nn.Module, params: Any, x_BT: Array, past: tuple[Past, ...] | None = None
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Computes the logits, and each block's keys and values of x, (H, B, T, D) each."""
    variables: Any = {"params": params}
    logits_BTV, found = model.apply(
        variables, x_BT, deterministic=True, past=past, mutable=["intermediates"]
    )
    blocks: Any = found["intermediates"]
    n_layer = config_of(model).n_layer
    return logits_BTV, [blocks[f"block_{i}"]["attn"]["heads"]["kv"][0] for i in range(n_layer)]


def _place(cache: Cache, kv: list[tuple[Array, Array]], length_B: Array, rows_B: Array) -> Cache:
    """Writes each row's last length_B keys and values into their slots, for the rows in rows_B."""
    T = kv[0][0].shape[2]
    S = cache.values_HBSD[0].shape[2]
    # The index of the token that goes into each slot; below 0, the slot keeps its content.
    place_BS = _time_of_slots(cache.clock, S)[None] - (cache.clock - length_B)[:, None]
    new_BS = (place_BS >= 0) & rows_B[:, None]
    place_BS = jnp.clip(place_BS, 0, T - 1)

    def merge(old_HBSD: Array, new_HBTD: Array) -> Array:
        moved_HBSD = jnp.take_along_axis(new_HBTD, place_BS[None, :, :, None], axis=2)
        return jnp.where(new_BS[None, :, :, None], moved_HBSD, old_HBSD).astype(old_HBSD.dtype)

    keys = (
        merge(old.swapaxes(-1, -2), k).swapaxes(-1, -2)
        for old, (k, _) in zip(cache.keys_HBDS, kv, strict=True)
    )
    values = (merge(old, v) for old, (_, v) in zip(cache.values_HBSD, kv, strict=True))
    return cache._replace(keys_HBDS=tuple(keys), values_HBSD=tuple(values))


def _time_of_slots(clock: Array, S: int) -> Array:
    """The time of the newest token before `clock` that each slot can hold: (S,)."""
    return clock - 1 - (clock - 1 - jnp.arange(S)) % S
