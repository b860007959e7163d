"""The pictures show what the model computes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.lecture import pictures
from gptjax.model import GPT
from gptjax.rungs import RUNGS
from gptjax.training import init_params


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_drawn_weights_are_those_that_the_model_attends_with(qkv_bias):
    """With them, the first block's attention can be computed by hand."""
    model_config = GPTConfig(
        vocab_size=7, block_size=6, n_layer=1, n_head=2, n_embd=8, dropout=0.0, qkv_bias=qkv_bias
    )
    model = GPT(model_config)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).normal(0, 0.3, leaf.shape), "f4"),
        jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0)),
    )
    x_BT = jnp.array([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    (weights_BHTT,) = pictures.attention_maps(model, params, x_BT)
    assert weights_BHTT.shape == (2, 2, 6, 6)

    _, seen = model.apply({"params": params}, x_BT, deterministic=True, capture_intermediates=True)  # type: ignore[misc]
    block = seen["intermediates"]["block_0"]
    value = params["block_0"]["attn"]["heads"]["value"]
    v_BHTD = jnp.einsum("btc,hcd->bhtd", block["ln_1"]["__call__"][0], value["kernel"])
    if qkv_bias:
        v_BHTD = v_BHTD + value["bias"][None, :, None, :]
    y_BTC = (weights_BHTT @ v_BHTD).transpose(0, 2, 1, 3).reshape(2, 6, 8)
    proj = params["block_0"]["attn"]["proj"]
    expected = y_BTC @ proj["kernel"] + proj["bias"][None, None]
    np.testing.assert_allclose(block["attn"]["__call__"][0], expected, atol=1e-5)


def test_a_model_without_blocks_has_no_attention_to_draw():
    model_config = GPTConfig(vocab_size=7, block_size=6, n_layer=1, n_head=2, n_embd=8)
    params = jax.eval_shape(
        partial(init_params, RUNGS["residual"](model_config)), jax.random.key(0)
    )
    with pytest.raises(InputError, match="layernorm"):
        pictures.attention_maps(
            RUNGS["residual"](model_config), params, jnp.zeros((1, 4), jnp.int32)
        )
