"""Generation: `generate`, and `stream`, which yields tokens as they are generated."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.errors import ConfigError, InputError
from gptjax.inference.decoding import ROOM, Drawn, Window, advance, prepare
from gptjax.inference.sampling import Sampling
from gptjax.numerics import own_numerics

Array = jax.Array
WINDOWS = ("exact", "chunked")
# A token's time is an int32 on the device.
MAX_TOKENS = 2**31 - ROOM


def generate(
    model: nn.Module,
    params: Any,
    prompt_BT: Any,
    key: Array,
    *,
    max_new_tokens: int,
    prompt_lengths: Sequence[int] | None = None,
    window: Window = "exact",
    **sampling: Any,
) -> Array:
    """Continues prompts, token by token.

    Args:
        model: a GPT, which decodes with a cache, or a module with the same call, which does not.
        prompt_BT: (B, T) ids, with T at least 1.
        key: a typed key. Row i has the key `fold_in(key, i)`, and its token at position t the key
            `fold_in(row_key, t)`. So a row does not depend on the other rows.
        max_new_tokens: at least 1.
        prompt_lengths: the length of each row's prompt, at most T; None means T.
        window: what a token is conditioned on when the text is longer than block_size. `exact`:
            the last block_size tokens, as in the lecture, re-encoded for each token. `chunked`:
            between block_size / 2 and block_size tokens, with the cache: when the window is full,
            its older half is dropped and the rest encoded again.
        sampling: fields of `Sampling` by name: temperature, top_k, top_p, min_p,
            repetition_penalty. By default, tokens are drawn from the model's own distribution.

    Returns:
        (B, T + max_new_tokens) int32: each row's prompt, the new tokens, then zeros.

    Raises:
        InputError: a setting is out of range, or a prompt is empty.
    """
    prompt_BT = np.asarray(prompt_BT, np.int32)
    if prompt_BT.ndim != 2 or 0 in prompt_BT.shape:
        raise InputError(f"the prompt's shape {prompt_BT.shape} must be (B, T), with T at least 1")
    B, T = prompt_BT.shape
    lengths = [T] * B if prompt_lengths is None else [int(n) for n in prompt_lengths]
    if len(lengths) != B or not all(1 <= n <= T for n in lengths):
        raise InputError(f"prompt_lengths {lengths} must be {B} numbers from 1 to {T}")
    prompts = [row[:n] for row, n in zip(prompt_BT, lengths, strict=True)]
    how = Sampling(**sampling)
    drawn = stream(model, params, prompts, key, how, max_new_tokens=max_new_tokens, window=window)
    new_BK = np.concatenate([part.ids_BK for part in drawn], axis=1)
    out_BT = np.zeros((B, T + max_new_tokens), np.int32)
    for out, prompt, new in zip(out_BT, prompts, new_BK, strict=True):
        out[: len(prompt) + max_new_tokens] = np.concatenate([prompt, new])
    return jnp.asarray(out_BT)


def stream(
    model: nn.Module,
    params: Any,
    prompts: Sequence[Any],
    key: Array,
    sampling: Sampling,
    *,
    max_new_tokens: int,
    window: Window = "exact",
    at_once: Callable[[], int] = lambda: ROOM,
    rows: Sequence[int] | None = None,
    alternatives: int = 0,
) -> Iterator[Drawn]:
    """Like `generate`, but yields tokens as they are generated: numpy arrays (B, K).

    Args:
        prompts: one array of ids for each row; none may be empty.
        at_once: returns the number of tokens to generate in the next call of the program, from 1 to
            256. It does not change the text.
        rows: the number of each row's sample, for its key; by default 0, 1, 2, ... A row is the
            same whether it is generated alone or with others.
        alternatives: the N of `Drawn`.

    Raises:
        InputError: a setting is out of range, or a prompt is empty.
    """
    check_generation(max_new_tokens, window)
    prompts = [np.asarray(prompt, np.int32) for prompt in prompts]
    if not prompts or any(prompt.ndim != 1 or not len(prompt) for prompt in prompts):
        raise InputError("there must be at least one prompt, and each must have at least one id")
    rows = list(range(len(prompts)) if rows is None else rows)
    with own_numerics():  # not around the `yield`, or the settings would leak to the caller
        program, state = prepare(model, prompts, rows, window, alternatives)
    traced = sampling.traced()
    done = 0
    while done < max_new_tokens:
        count = min(max(at_once(), 1), ROOM, max_new_tokens - done)
        done += count
        with own_numerics():
            state, drawn = advance(program, params, state, np.int32(done), key, traced)
        yield Drawn(*(np.asarray(x)[: len(prompts), :count] for x in drawn))


def check_generation(max_new_tokens: int, window: str) -> None:
    """Validates the settings that are not fields of `Sampling`.

    Raises:
        ConfigError: a setting is out of range.
    """
    if max_new_tokens < 1:
        raise ConfigError("max_new_tokens", max_new_tokens, "must be at least 1")
    if max_new_tokens >= MAX_TOKENS:
        raise ConfigError("max_new_tokens", max_new_tokens, f"must be below {MAX_TOKENS}")
    if window not in WINDOWS:
        raise ConfigError("window", repr(window), f"must be one of {', '.join(WINDOWS)}")
