"""The lecture's parts: its equalities and its notes on attention are true."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.layers import attention_weights, causal_mask
from gptjax.lecture import attention, averaging, training_set
from gptjax.model import GPT, Head, forward
from gptjax.presets import PRESETS
from gptjax.rungs import RUNGS, VARIANTS, Sinusoids, WithoutPositions, like_pytorch, sinusoids
from gptjax.store.runs import make_model
from gptjax.training import init_params

SMALL = GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=8, dropout=0.0)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=3, max_size=40))
def test_a_text_survives_the_training_set(text):
    prepared = training_set.prepare(text)
    ids = np.concatenate([prepared.train, prepared.val])
    assert prepared.tokenizer.decode(ids) == text


def test_a_chunk_holds_an_example_of_every_length():
    assert training_set.examples(np.array([18, 47, 56, 57])) == [
        ([18], 47),
        ([18, 47], 56),
        ([18, 47, 56], 57),
    ]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (3, 8, 2)], ids=str)
def test_the_three_averages_are_equal(shape):
    x_BTC = normal(0, *shape)
    expected = averaging.average_loop(x_BTC)
    np.testing.assert_allclose(averaging.average_matrix(x_BTC), expected, atol=1e-6)
    np.testing.assert_allclose(averaging.average_softmax(x_BTC), expected, atol=1e-6)


def test_the_loop_is_the_mean_so_far():
    x_BTC = normal(0, 2, 5, 3)
    for b in range(2):
        for t in range(5):
            mean = np.mean(np.asarray(x_BTC)[b, : t + 1], axis=0)
            np.testing.assert_allclose(averaging.average_loop(x_BTC)[b, t], mean, atol=1e-6)


def test_without_a_question_self_attention_is_the_average():
    x_BTC, key_CD, value_CD = normal(0, 2, 5, 4), normal(1, 4, 3), normal(2, 4, 3)
    y_BTD, weights = averaging.average_by_affinity(x_BTC, jnp.zeros((4, 3)), key_CD, value_CD)
    np.testing.assert_allclose(y_BTD, averaging.average_matrix(x_BTC @ value_CD), atol=1e-5)
    np.testing.assert_allclose(weights[0], averaging.softmax_weights(5), atol=1e-6)


def test_with_a_question_it_is_the_gpts_head_and_no_average():
    x_BTC = normal(0, 2, 6, 8)
    kernels = {name: normal(i, 8, 4) for i, name in enumerate(("query", "key", "value"))}
    y_BTD, _ = averaging.average_by_affinity(x_BTC, *kernels.values())
    params = {name: {"kernel": kernel} for name, kernel in kernels.items()}
    head = Head(SMALL).apply({"params": params}, x_BTC, None)
    np.testing.assert_allclose(y_BTD, head, atol=1e-5)
    assert jnp.abs(y_BTD - averaging.average_matrix(x_BTC @ kernels["value"])).max() > 0.1


def test_attention_with_a_causal_mask_is_the_gpts():
    q, k, v = normal(0, 2, 5, 4), normal(1, 2, 5, 4), normal(2, 2, 5, 4)
    ours = attention_weights(q, k) @ v
    np.testing.assert_allclose(attention.attend(q, k, v, causal_mask(5)), ours, atol=1e-6)


@pytest.mark.parametrize("head_size", [4, 16, 64])
def test_scaling_keeps_the_variance_of_scores_at_one(head_size):
    key = jax.random.key(head_size)
    assert attention.score_variance(key, head_size, scaled=True) == pytest.approx(1, rel=0.2)
    assert attention.score_variance(key, head_size, scaled=False) == pytest.approx(
        head_size, rel=0.2
    )


def test_sinusoids_are_those_of_the_paper():
    table_TC = sinusoids(10, 6)
    for t in range(10):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert table_TC[t, 2 * i] == pytest.approx(np.sin(angle), abs=1e-6)
            assert table_TC[t, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-6)


def test_an_odd_width_has_no_sinusoids():
    with pytest.raises(InputError, match="must be even"):
        sinusoids(4, 5)


logits_of = jax.jit(forward, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def loud_params(model):
    """Far from N(0, 0.02), so that every part matters."""
    key = jax.random.key(0)
    return like_pytorch(init_params(model, key), key)


def test_one_block_without_positions_sees_a_bag_and_with_them_an_order():
    model_config = GPTConfig(vocab_size=7, block_size=6, n_layer=1, n_head=2, n_embd=8, dropout=0.0)
    x_BT, shuffled_BT = jnp.array([[1, 2, 3, 4, 5, 6]]), jnp.array([[4, 2, 5, 1, 3, 6]])

    def last(model, ids):
        return logits_of(model, loud_params(model), ids)[:, -1]

    def difference(model):
        return float(jnp.abs(last(model, x_BT) - last(model, shuffled_BT)).max())

    assert difference(WithoutPositions(model_config)) < 1e-5
    assert difference(Sinusoids(model_config)) > 1e-4
    assert difference(GPT(model_config)) > 1e-3


@pytest.mark.parametrize("name", [*RUNGS, *VARIANTS])
def test_no_rung_looks_ahead(name):
    model = {**RUNGS, **VARIANTS}[name](SMALL)
    params = loud_params(model)
    x_BT = jnp.array([[1, 2, 3, 4, 5, 6]])
    before, after = (logits_of(model, params, x) for x in (x_BT, x_BT.at[0, 3].set(0)))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3] != after[:, 3]).any()


def test_rungs_differ_by_the_lectures_parts():
    shapes = {
        name: jax.eval_shape(
            lambda key, name=name: init_params(make_model(PRESETS[name]), key), jax.random.key(0)
        )
        for name in (*RUNGS, "layernorm")
    }
    assert set(shapes["bigram"]) == {"table"}
    assert set(shapes["head"]) == {"wte", "wpe", "head", "lm_head"}
    assert set(shapes["multihead"]["attn"]) == {"heads"}, "no projection yet"
    assert shapes["feedforward"]["mlp"]["kernel"].shape == (32, 32)
    assert set(shapes["residual"]["block_0"]) == {"attn", "mlp"}
    assert shapes["residual"]["block_0"]["mlp"]["fc"]["kernel"].shape == (32, 128)
    assert set(shapes["layernorm"]["block_0"]) == {"attn", "mlp", "ln_1", "ln_2"}


def test_initial_values_are_pytorchs():
    params = {
        "table": {"embedding": jnp.zeros((200, 50))},
        "layer": {"kernel": jnp.zeros((2, 100, 60)), "bias": jnp.zeros((2, 60))},
        "ln": {"scale": jnp.ones(5), "bias": jnp.zeros(5)},
    }
    drawn = like_pytorch(params, jax.random.key(0))
    assert float(drawn["table"]["embedding"].std()) == pytest.approx(1, rel=0.05)
    for array in drawn["layer"].values():
        assert float(jnp.abs(array).max()) <= 0.1
        assert float(array.std()) == pytest.approx(0.1 / 3**0.5, rel=0.1)
    assert (drawn["ln"]["scale"] == 1).all()
    assert (drawn["ln"]["bias"] == 0).all()


@pytest.mark.parametrize("name", ["head", "residual"])
def test_a_rung_starts_like_pytorch_and_its_variant_at_a_fiftieth(name):
    def std(model):
        params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
        return float(params["wte"]["embedding"].std())

    model_config = PRESETS[name].replace(n_layer=1).model
    assert std(RUNGS[name](model_config)) == pytest.approx(1, rel=0.1)
    assert std(VARIANTS[f"{name}-normal"](model_config)) == pytest.approx(0.02, rel=0.1)
