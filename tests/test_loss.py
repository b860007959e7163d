import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gptjax import loss
from gptjax.config import GPTConfig
from gptjax.loss import bits_per_character, cross_entropy, padded_head, summed_loss, token_losses
from gptjax.model import GPT, forward

from conftest import init

LARGE = GPTConfig(vocab_size=5000, block_size=16, n_layer=1, n_head=2, n_embd=8, dropout=0.1)
TIED = dataclasses.replace(LARGE, tie_embeddings=True, head_bias=False)
KEY = jax.random.key(0)


def test_equal_logits_cost_the_logarithm_of_the_vocabulary():
    losses = token_losses(jnp.zeros((2, 3, 65)), jnp.zeros((2, 3), jnp.int32))
    np.testing.assert_allclose(losses, math.log(65), rtol=1e-6)


def test_two_tokens_by_hand():
    logits = jnp.log(jnp.array([[[0.25, 0.75], [0.5, 0.5]]]))
    losses = token_losses(logits, jnp.array([[0, 1]]))
    np.testing.assert_allclose(losses, [[math.log(4), math.log(2)]], rtol=1e-6)
    assert math.isclose(cross_entropy(logits, jnp.array([[0, 1]])), math.log(8) / 2, rel_tol=1e-6)


def test_agrees_with_optax():
    logits = 5 * jax.random.normal(jax.random.key(0), (4, 7, 11))
    targets = jax.random.randint(jax.random.key(1), (4, 7), 0, 11)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    np.testing.assert_allclose(token_losses(logits, targets), expected, rtol=1e-5, atol=1e-6)


def test_large_logits_do_not_overflow():
    losses = token_losses(jnp.array([[[1e4, -1e4]]]), jnp.array([[1]]))
    np.testing.assert_allclose(losses, 2e4)


def test_id_zero_is_a_token_like_any_other():
    logits = jax.random.normal(jax.random.key(0), (1, 5, 3))
    assert (token_losses(logits, jnp.zeros((1, 5), jnp.int32)) > 0).all()


def test_bits_per_character():
    assert math.isclose(bits_per_character(math.log(2)), 1)
    assert math.isclose(bits_per_character(math.log(2), 4), 0.25)


@pytest.mark.parametrize("model_config", [LARGE, TIED], ids=["untied, bias", "tied"])
def test_in_pieces_the_loss_and_its_gradients_are_the_plain_ones(model_config, monkeypatch):
    """15 positions in 4 pieces, so that one is padded; some targets do not count."""
    monkeypatch.setattr(loss, "PIECE_BYTES", 4 * 2 * 4 * 5000)
    model, params = GPT(model_config), init(model_config, KEY)
    x_BT = jax.random.randint(KEY, (2, 15), 0, 5000)
    y_BT, counts_BT = jnp.roll(x_BT, -1, 1), x_BT % 3 > 0

    def plain(params):
        losses_BT = token_losses(forward(model, params, x_BT, KEY), y_BT)
        return jnp.sum(losses_BT, where=counts_BT) / 2

    def pieces(params):
        return summed_loss(model, params, x_BT, y_BT, counts_BT, KEY) / 2

    (a, expected), (b, found) = (jax.jit(jax.value_and_grad(f))(params) for f in (plain, pieces))
    assert math.isclose(a, b, rel_tol=1e-6)
    assert math.isclose(a, jax.jit(pieces)(params), rel_tol=1e-6)
    for x, y in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6 * float(jnp.abs(x).max()))


def test_the_padded_vocabulary_has_no_probability_beyond_the_real_one():
    model, params = GPT(TIED), init(TIED, KEY)
    table_VC, bias_V = padded_head(model, params)
    assert len(table_VC) == len(bias_V) == 5120
    probabilities = jax.nn.softmax(table_VC @ jnp.ones(8) + bias_V)
    assert (probabilities[5000:] == 0).all()
    expected = jax.nn.softmax(params["wte"]["embedding"] @ jnp.ones(8))
    np.testing.assert_allclose(probabilities[:5000], expected, rtol=1e-6)


def test_in_pieces_the_gradient_takes_less_than_half_the_memory():
    """GPT-2's vocabulary, 8,192 tokens, compiled and not run: XLA's temporaries."""
    model_config = dataclasses.replace(TIED, vocab_size=50257, block_size=1024, n_embd=64)
    model = GPT(model_config)
    params = jax.eval_shape(lambda: init(model_config, KEY))
    ids = jax.ShapeDtypeStruct((8, 1024), jnp.int32)

    def plain(params, x_BT, y_BT):
        return token_losses(forward(model, params, x_BT), y_BT).sum()

    def pieces(params, x_BT, y_BT):
        return summed_loss(model, params, x_BT, y_BT)

    for transform in (jax.grad, lambda f: f):
        before, after = (
            jax.jit(transform(f)).lower(params, ids, ids).compile().memory_analysis()
            for f in (plain, pieces)
        )
        assert after.temp_size_in_bytes < before.temp_size_in_bytes / 2
