import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.data import check_lengths, compact, sample_batch, split
from gptjax.errors import InputError

KEY = jax.random.key(0)


def test_split_points_are_the_lectures():
    train, val = split(np.zeros(1_115_394, np.uint8))
    assert (len(train), len(val)) == (1_003_854, 111_540)


def test_targets_are_the_inputs_one_later():
    """On a text that counts, each target is its input plus one, and windows are contiguous."""
    x, y = sample_batch(jnp.arange(100), KEY, 3, 6, 10)
    assert x.shape == y.shape == (6, 10)
    assert x.dtype == y.dtype == jnp.int32
    assert (y == x + 1).all()
    assert (jnp.diff(x, axis=1) == 1).all()


def test_a_batch_is_a_function_of_key_and_step():
    tokens = jnp.arange(1000)
    first = sample_batch(tokens, KEY, 5, 4, 8)
    assert (sample_batch(tokens, KEY, jnp.int32(5), 4, 8).x_BT == first.x_BT).all()
    assert (sample_batch(tokens, KEY, 6, 4, 8).x_BT != first.x_BT).any()
    assert (sample_batch(tokens, jax.random.key(1), 5, 4, 8).x_BT != first.x_BT).any()


def test_every_window_can_be_drawn_and_none_leaves_the_text():
    x, y = sample_batch(jnp.arange(12), KEY, 0, 400, 8)
    assert set(np.unique(x[:, 0])) == {0, 1, 2, 3}
    assert y.max() == 11


def test_small_types_hold_the_ids():
    ids = np.array([0, 255])
    assert compact(ids, 256).dtype == np.uint8
    assert compact(ids, 257).dtype == np.uint16
    assert compact(ids, 65_537).dtype == np.int32
    batch = sample_batch(jnp.asarray(compact(np.arange(256), 256)), KEY, 0, 64, 8)
    assert (batch.y_BT == batch.x_BT + 1).all(), "255 does not wrap"


def test_a_short_split_is_named_with_a_block_size_that_fits():
    train, val = split(np.zeros(100, np.uint8))
    check_lengths(train, val, 9)
    with pytest.raises(InputError) as caught:
        check_lengths(train, val, 10)
    assert "validation split has 10 tokens" in str(caught.value)
    assert "block_size of at most 9" in str(caught.value)
    with pytest.raises(InputError, match="longer text"):
        check_lengths(*split(np.zeros(3, np.uint8)), 1)
