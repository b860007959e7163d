import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptjax.loss import bits_per_character, cross_entropy, token_losses


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
