"""Attention by hand: one head, many heads, the mask and the scale."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import GPTConfig
from gptjax.model import Block, Head, MultiHeadAttention, attention_weights

from conftest import tiny_config

KEY = jax.random.key(0)
TINY = tiny_config(n_layer=2).model


@pytest.mark.parametrize("module", [MultiHeadAttention, Block])
def test_modules_are_causal_too(module):
    layer = module(TINY)
    x_TC = jax.random.normal(KEY, (8, 16))
    params = jax.jit(layer.init)(KEY, x_TC[None], None)

    def totals(x_TC):
        return layer.apply(params, x_TC[None], None)[0].sum(-1)

    jacobian = jax.jit(jax.jacobian(totals))(x_TC)
    influence_TS = np.abs(jacobian).sum(-1)
    assert (influence_TS[np.triu_indices(8, 1)] == 0).all()
    assert (influence_TS[np.tril_indices(8)] > 0).all()


def test_one_head_by_hand():
    """C = D = 1, q = 2x, k = x, v = 10x on x = (0, 1): position 1 scores (0, 2), so it takes
    e^2 / (1 + e^2) of 10; position 0 sees itself alone."""
    model_config = GPTConfig(vocab_size=2, block_size=2, n_layer=1, n_head=1, n_embd=1, dropout=0.0)
    kernels = {"query": 2.0, "key": 1.0, "value": 10.0}
    params = {name: {"kernel": jnp.full((1, 1), value)} for name, value in kernels.items()}
    y = Head(model_config).apply({"params": params}, jnp.array([[[0.0], [1.0]]]), None)
    expected = [0.0, 10 * math.e**2 / (1 + math.e**2)]
    np.testing.assert_allclose(np.ravel(y), expected, rtol=1e-6)


def test_scores_are_divided_by_the_root_of_the_head_size():
    """q.k = 4 * 1 * 1 over sqrt(4) is 2, against 0 for the other position."""
    q = jnp.ones((1, 2, 4))
    k = jnp.stack([jnp.zeros((1, 4)), jnp.ones((1, 4))], axis=1)
    weights = attention_weights(q, k)
    np.testing.assert_allclose(weights[0, 1, 1], math.e**2 / (1 + math.e**2), rtol=1e-6)


def test_equal_scores_average_the_past():
    weights = attention_weights(jnp.zeros((1, 4, 2)), jnp.ones((1, 4, 2)))
    np.testing.assert_allclose(weights[0], np.tril(np.ones((4, 4))) / [[1], [2], [3], [4]])


def test_vmapped_heads_are_the_lectures_list_of_heads():
    layer = MultiHeadAttention(TINY)
    x_BTC = jax.random.normal(KEY, (2, 8, 16))
    params = jax.jit(layer.init)(KEY, x_BTC, None)["params"]
    one_by_one = [jax.tree.map(lambda a, h=h: a[h], params["heads"]) for h in range(2)]
    apply_head = jax.jit(Head(TINY).apply)
    outputs = [apply_head({"params": head}, x_BTC, None) for head in one_by_one]
    y_BTC = jnp.concatenate(outputs, axis=-1) @ params["proj"]["kernel"]
    together = jax.jit(layer.apply)({"params": params}, x_BTC, None)
    np.testing.assert_allclose(together, y_BTC, rtol=1e-5, atol=1e-6)
    kernels = params["heads"]["query"]["kernel"]
    assert (kernels[0] != kernels[1]).any(), "each head has its own parameters"


def test_heads_drop_different_weights():
    """Two heads with the same parameters differ only by their dropout keys."""
    layer = MultiHeadAttention(dataclasses.replace(TINY, dropout=0.5))
    x_BTC = jax.random.normal(KEY, (1, 8, 16))
    params = jax.jit(layer.init)(KEY, x_BTC, None)["params"]
    same = jax.tree.map(lambda a: jnp.stack([a[0], a[0]]), params["heads"])
    identity = {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}
    variables = {"params": {"heads": same, "proj": identity}}
    y = jax.jit(layer.apply)(variables, x_BTC, KEY)
    kept = y != 0  # the projection's own dropout zeroes entries of either half
    both = kept[..., :8] & kept[..., 8:]
    assert (y[..., :8] != y[..., 8:])[both].any()
