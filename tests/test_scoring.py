"""Scoring: every token once, with as much context as the stride allows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.errors import InputError
from gptjax.inference.adapt import with_block_size, with_dtype
from gptjax.inference.scoring import score
from gptjax.loss import token_losses
from gptjax.model import GPT, config_of
from gptjax.training import evaluate

from conftest import init, run_model, tiny_config

CONFIG = tiny_config().model
MODEL = GPT(CONFIG)
PARAMS = jax.tree.map(lambda x: 8 * x, init(CONFIG, jax.random.key(0)))
TEXT = np.asarray(jax.random.randint(jax.random.key(1), (45,), 0, 11))


def by_hand(ids, stride):
    """Token by token, from the first window that includes the token, run alone."""
    T, targets, total, begin = 8, len(ids) - 1, 0.0, 0
    for target in range(1, targets + 1):
        while target > begin + T:
            begin = max(0, min(begin + stride, targets - T))
        x_BT = jnp.asarray(ids[begin:target])[None]
        total += float(
            token_losses(run_model(CONFIG, PARAMS, x_BT)[:, -1:], ids[None, target, None])[0, 0]
        )
    return total


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("length", [2, 8, 9, 10, 27])
def test_the_sum_is_that_of_each_token_in_its_window(length, stride):
    found = score(MODEL, PARAMS, TEXT[:length], stride=stride, batch_size=2)
    assert found.tokens == length - 1
    np.testing.assert_allclose(found.nats, by_hand(TEXT[:length], stride), rtol=1e-5)


def test_with_windows_end_to_end_it_is_the_evaluation():
    """41 tokens are 5 whole windows of 8 predictions."""
    found = score(MODEL, PARAMS, TEXT[:41], stride=8)
    expected = evaluate(MODEL, PARAMS, jnp.asarray(TEXT[:41]))
    np.testing.assert_allclose(found.nats / found.tokens, expected, rtol=1e-5)


def test_one_compile_for_texts_of_any_length(count_compiles):
    score(MODEL, PARAMS, TEXT[:20], stride=4)
    with count_compiles() as compiled:
        score(MODEL, PARAMS, TEXT[:3], stride=2)
        score(MODEL, PARAMS, TEXT, stride=1)
    assert compiled == []


@pytest.mark.parametrize(("stride", "length"), [(0, 9), (9, 9), (1, 1)])
def test_what_cannot_be_scored_is_named(stride, length):
    with pytest.raises(InputError, match=r"stride \(|has no loss"):
        score(MODEL, PARAMS, TEXT[:length], stride=stride)


def test_a_shorter_context_is_the_model_with_fewer_positions():
    model, params = with_block_size(MODEL, PARAMS, 5)
    assert config_of(model).block_size == 5
    found = model.apply({"params": params}, TEXT[None, :5], deterministic=True)
    np.testing.assert_allclose(found, run_model(CONFIG, PARAMS, TEXT[None, :5]), rtol=1e-5)
    with pytest.raises(InputError, match=r"block_size \(9\) must be from 1 to the model's \(8\)"):
        with_block_size(MODEL, PARAMS, 9)


def test_storing_bfloat16_changes_no_result():
    """The computation itself rounds the same numbers."""
    model, params = with_dtype(MODEL, PARAMS, "bfloat16")
    stored = {path[-1].key: x.dtype for path, x in jax.tree_util.tree_leaves_with_path(params)}
    assert stored["kernel"] == jnp.bfloat16
    assert stored["embedding"] == stored["bias"] == stored["scale"] == jnp.float32
    one = model.apply({"params": PARAMS}, TEXT[None, :8], deterministic=True)
    other = model.apply({"params": params}, TEXT[None, :8], deterministic=True)
    assert (one == other).all()


def test_a_tied_table_is_stored_in_bfloat16():
    """As the output layer, it is read whole for each token."""
    config = dataclasses.replace(CONFIG, tie_embeddings=True)
    _, params = with_dtype(GPT(config), init(config, jax.random.key(0)), "bfloat16")
    assert params["wte"]["embedding"].dtype == jnp.bfloat16
    assert params["wpe"]["embedding"].dtype == jnp.float32
