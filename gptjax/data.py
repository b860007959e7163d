"""From ids to batches. A batch is a function of (key, step): there is no iterator to save.

The lecture's "training set" and "batch" sections, as pure functions.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.errors import InputError
from gptjax.numerics import own_numerics

Array = jax.Array
Whole = TypeVar("Whole", str, np.ndarray)
TRAIN_FRACTION = 0.9
# JAX's numbers here have 32 bits: a text of as many tokens needs another way to draw its windows.
WIDE = 2**31


class Batch(NamedTuple):
    """Inputs and targets: y_BT[b, t] is the token that follows x_BT[b, :t + 1]. int32, (B, T)."""

    x_BT: Array
    y_BT: Array


class Block(NamedTuple):
    """The windows of several steps in a row, read on the host.

    Attributes:
        first: int32 scalar, the first of these steps.
        windows_SBT: ids of any integer type, (steps, sequences, block_size + 1).
    """

    first: Array
    windows_SBT: Array

    def batch(self, step_number: Array | int) -> Batch:
        """The batch of a step of the block."""
        return _batch(self.windows_SBT[step_number - self.first])


def split(whole: Whole) -> tuple[Whole, Whole]:
    """The first 90 % for training, the rest for validation, as the lecture splits it.

    Args:
        whole: a text, which is split by its characters, or its ids.
    """
    n = int(TRAIN_FRACTION * len(whole))
    return whole[:n], whole[n:]


def check_lengths(train: np.ndarray, val: np.ndarray, block_size: int) -> None:
    """Each split must hold one block and its targets.

    Raises:
        InputError: a split is too short; the message names a block_size that fits, if one does.
    """
    for name, tokens in (("training", train), ("validation", val)):
        if len(tokens) < block_size + 1:
            fits = min(len(train), len(val)) - 1
            way_out = f"use a block_size of at most {fits}" if fits >= 1 else "use a longer text"
            raise InputError(
                f"the text's {name} split has {len(tokens)} tokens, and block_size ({block_size}) "
                f"needs at least {block_size + 1}: {way_out}"
            )


def compact(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Ids in the smallest unsigned type that holds them: the corpus lives on the device."""
    for dtype in (np.uint8, np.uint16):
        if vocab_size <= np.iinfo(dtype).max + 1:
            return tokens.astype(dtype)
    return tokens.astype(np.int32)


@own_numerics()
def sample_batch(
    tokens: Array, key: Array, step_number: Array | int, batch_size: int, block_size: int
) -> Batch:
    """The batch of step `step_number`: `batch_size` random windows of the text.

    Args:
        tokens: (N,) ids of any integer type, N > block_size.
        key: the run's data key; the step's own is `fold_in(key, step_number)`.
        step_number: the update that the batch is for, from 0.

    Returns:
        Batch of int32 (batch_size, block_size).
    """
    starts = window_starts(key, step_number, batch_size, len(tokens) - block_size)
    return _batch(tokens[starts[:, None] + jnp.arange(block_size + 1)[None]])


@own_numerics()
def window_starts(key: Array, step_number: Array | int, batch_size: int, count: int) -> Array:
    """Where the windows of a step's batch start: int32 (batch_size,), below `count` < 2**31."""
    return jax.random.randint(jax.random.fold_in(key, step_number), (batch_size,), 0, count)


@own_numerics()
def wide_bits(key: Array, step_number: Array | int, batch_size: int) -> Array:
    """What `wide_starts` makes the windows of a step's batch of: uint32 (batch_size, 2)."""
    return jax.random.bits(jax.random.fold_in(key, step_number), (batch_size, 2), np.uint32)


def wide_starts(bits: np.ndarray, count: int) -> np.ndarray:
    """Where windows start in a text of 2**31 tokens or more: 64 random bits modulo `count`.

    For a trillion tokens, no window is likelier than another by more than 1 part in 10 million.

    Args:
        bits: of `wide_bits`, uint32 (..., 2).

    Returns:
        int64 (...), below `count`.
    """
    high, low = bits[..., 0].astype(np.uint64), bits[..., 1].astype(np.uint64)
    return ((high << np.uint64(32) | low) % np.uint64(count)).astype(np.int64)


def _batch(windows: Array) -> Batch:
    """Inputs and targets of windows (B, T + 1)."""
    windows = windows.astype(jnp.int32)
    return Batch(windows[:, :-1], windows[:, 1:])
