import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import GPTConfig
from gptjax.layers import dense, dropout, embed

from conftest import init

KEY = jax.random.key(0)


@pytest.mark.parametrize("rate", [0.001, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(rate, dtype):
    """Both halves of a word, each independent of the other; an odd number of them."""
    n = 200_001
    x = jnp.ones((3, n // 3), dtype)
    y = dropout(x, rate, KEY)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    kept = np.asarray(y != 0).ravel()
    five_sigma = 5 * (rate * (1 - rate) / (n // 2)) ** 0.5
    first, second = kept[: n // 2], kept[n // 2 + 1 :]
    assert abs(first.mean() - (1 - rate)) < five_sigma
    assert abs(second.mean() - (1 - rate)) < five_sigma
    assert abs((first & second).mean() - (1 - rate) ** 2) < five_sigma
    np.testing.assert_allclose(np.asarray(y, np.float32)[y != 0], 1 / (1 - rate), rtol=5e-3)
    assert (dropout(x, rate, jax.random.key(1)) != y).any()
    assert dropout(x, rate, None) is x


def test_dropout_keeps_something_at_any_rate_below_one():
    y = dropout(jnp.ones(2**18), 1 - 1e-9, KEY)
    assert 0 < int((y != 0).sum()) < 30
    assert float(y.max()) == 2**16


def test_residual_projections_start_smaller_when_scaled():
    wide = GPTConfig(n_layer=2, n_head=2, n_embd=128, block_size=8)
    for base, scaled in ((0.02, False), (0.02, True), (0.06, True)):
        std = base / 2 if scaled else base
        model_config = dataclasses.replace(wide, scaled_residual_init=scaled, init_std=base)
        block = init(model_config, KEY)["block_1"]
        for name in ("attn", "mlp"):
            assert abs(float(block[name]["proj"]["kernel"].std()) - std) < 0.03 * std
        assert abs(float(block["mlp"]["fc"]["kernel"].std()) - base) < 0.03 * base
        assert (block["mlp"]["fc"]["bias"] == 0).all()


def test_gradients_of_embeddings_and_biases_are_exact_sums_in_bfloat16():
    """4,097 ones: a sum of them in bfloat16, one by one, is 256."""
    model_config, many = GPTConfig(n_layer=1, n_head=1, n_embd=8, dtype="bfloat16"), 4097
    table = embed(model_config, 3, "wte")
    layer = dense(model_config, 8, use_bias=True, name="fc")
    params = {"table": {"embedding": jnp.ones((3, 8))}}
    params["layer"] = {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}
    same_BT = jnp.ones((1, many), jnp.int32)

    def total(params):
        x_BTC = table.apply({"params": params["table"]}, same_BT).astype(jnp.bfloat16)
        y_BTC = layer.apply({"params": params["layer"]}, jax.lax.stop_gradient(x_BTC))
        assert y_BTC.dtype == jnp.bfloat16
        return x_BTC.astype(jnp.float32).sum() + y_BTC.astype(jnp.float32).sum()

    grads = jax.jit(jax.grad(total))(params)
    np.testing.assert_array_equal(grads["layer"]["bias"], np.full(8, many))
    np.testing.assert_array_equal(grads["table"]["embedding"][:, 0], [0, many, 0])
