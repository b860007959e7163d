"""The functions that a backend injects into the model change the computation, not its results."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.backends import cpu, execution
from gptjax.backends.execution import (
    compile_once_options,
    describe_attention,
    micro_batch_size,
    suited,
)
from gptjax.loss import cross_entropy
from gptjax.model import GPT, Execution, Head, attention_weights, forward, weighted_values
from gptjax.presets import PRESETS
from gptjax.training import init_params

from conftest import init, run_model, tiny_config

KEY = jax.random.key(2)


def plain_attention(q, k, v):
    return weighted_values(attention_weights(q, k), v)


def nothing(weights):
    return weights


def value_and_gradient(model, model_config, params, dropout_key=None):
    x_BT = jax.random.randint(KEY, (2, model_config.block_size), 0, model_config.vocab_size)

    def loss(params):
        return cross_entropy(forward(model, params, x_BT, dropout_key), x_BT)

    return jax.jit(jax.value_and_grad(loss))(params)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_remat_changes_no_loss_no_gradient_and_no_parameter(dropout):
    model_config = tiny_config(n_layer=2, dropout=dropout).model
    params, key = init(model_config, KEY), KEY if dropout else None
    model = GPT(model_config, Execution(remat=True))
    fresh = jax.eval_shape(lambda key: init_params(model, key), KEY)
    assert jax.tree.structure(fresh) == jax.tree.structure(params)
    same(
        value_and_gradient(model, model_config, params, key),
        value_and_gradient(GPT(model_config), model_config, params, key),
    )


def test_remat_computes_blocks_twice():
    model_config = tiny_config(n_layer=2).model
    params, x = init(model_config, KEY), np.zeros((1, 8), np.int32)

    def residuals(model):
        def loss(params):
            return cross_entropy(forward(model, params, x), x)

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general")

    assert residuals(GPT(model_config, Execution(remat=True))) > residuals(GPT(model_config))


def test_a_kernel_is_used_where_it_applies_and_only_there():
    calls = []

    def kernel(q, k, v, drop):
        calls.append(q.shape)
        return weighted_values(drop(attention_weights(q, k)), v)

    for dropout, key in ((0.0, None), (0.3, None), (0.3, KEY)):
        model_config = tiny_config(dropout=dropout).model
        params = init(model_config, KEY)
        calls.clear()
        found = value_and_gradient(GPT(model_config, Execution(kernel)), model_config, params, key)
        assert calls
        same(found, value_and_gradient(GPT(model_config), model_config, params, key))


@pytest.mark.parametrize(
    ("platform", "changes", "says"),
    [
        ("cpu", {}, "no flash attention for a cpu"),
        ("gpu", {"dtype": "float32"}, "does not support float32"),
        ("gpu", {"dropout": 0.1}, "does not support dropout"),
        ("gpu", {"n_embd": 20}, "not 10"),
        ("gpu", {}, "does not run on this GPU"),  # which is a CPU here
    ],
)
def test_why_attention_is_plain(platform, changes, says):
    run_config = tiny_config(**{"n_embd": 16, "dtype": "bfloat16", **changes})
    model = suited(GPT(run_config.model), run_config, platform)
    assert says in describe_attention(model, platform)
    assert model.execution.attention is None


def test_on_a_cpu_in_float32_attention_is_said_to_be_in_parts():
    run_config = tiny_config()
    model = suited(GPT(run_config.model), run_config, "cpu")
    assert describe_attention(model, "cpu").startswith("one block of queries at a time")
    assert model.execution.attention is cpu.attention


def test_cudnns_kernel_is_chosen_where_it_runs(monkeypatch):
    monkeypatch.setattr(execution, "_cudnn_runs", lambda run_config: True)
    run_config = tiny_config(n_embd=16, dtype="bfloat16", remat=True)
    model = suited(GPT(run_config.model), run_config, "gpu")
    assert describe_attention(model, "gpu") == "cuDNN's"
    assert model.execution == Execution(execution.cudnn_attention, remat=True)


def test_cudnns_kernel_is_given_what_it_takes(monkeypatch):
    """Without a GPU, XLA's form of the same call computes plain attention."""
    real = jax.nn.dot_product_attention

    def answer(*args, implementation, **kwargs):
        assert implementation == "cudnn"
        return real(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", answer)
    q, k, v = jax.random.normal(KEY, (3, 2, 8, 4))
    same(execution.cudnn_attention(q, k, v, nothing), plain_attention(q, k, v))


@pytest.mark.parametrize(
    ("qkv_bias", "remat"),
    [
        (True, True),
        pytest.param(False, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
    ],
)
def test_projections_of_all_heads_at_once_are_those_of_each(qkv_bias, remat):
    run_config = tiny_config(n_layer=2, n_head=3, n_embd=12, dropout=0.3, qkv_bias=qkv_bias)
    run_config = run_config.replace(remat=remat)
    params = init(run_config.model, KEY)
    model = suited(GPT(run_config.model), run_config, "cpu")
    assert model.execution.projection is not None
    found = value_and_gradient(model, run_config.model, params, KEY)
    same(found, value_and_gradient(GPT(run_config.model), run_config.model, params, KEY))
    # Over seeds, too: a second batch axis around the axis of heads.
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    x_BT = jnp.zeros((1, 4), jnp.int32)
    both = jax.jit(jax.vmap(lambda p: forward(model, p, x_BT)))(many)
    same(both[1], run_model(run_config.model, jax.tree.map(lambda x: 2 * x, params), x_BT))


@pytest.mark.parametrize("T", [1, 8, 9, 31, 32, 33, 70])
def test_attention_in_parts_is_attention(T, monkeypatch):
    monkeypatch.setattr(cpu, "QUERIES", 8)
    q, k, v = jax.random.normal(KEY, (3, 2, T, 4))

    def total(attention):
        def f(q, k, v):
            return (attention(q, k, v) ** 2).sum()

        return jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(q, k, v)

    sizes, parts = [], []

    def drop(weights, part=0):
        sizes.append(weights.shape[1:])
        parts.append(part)
        return weights

    same(total(lambda q, k, v: cpu.attention(q, k, v, drop)), total(plain_attention))
    assert len(sizes) <= 4
    assert len(set(parts)) == len(parts), "each part has masks of its own"
    assert sum(t for t, _ in sizes) == sizes[-1][1] == T


def test_dropout_reaches_every_part(monkeypatch):
    """Zero keys make weights uniform; values of one make each row the share that was kept."""
    monkeypatch.setattr(cpu, "QUERIES", 8)
    model_config = tiny_config(block_size=32, n_head=1, dropout=0.5).model

    def attention(q, k, v, drop):
        return cpu.attention(q, jnp.zeros_like(k), jnp.ones_like(v), drop)

    head, x_BTC = Head(model_config, Execution(attention)), jnp.ones((64, 32, model_config.n_embd))
    variables = jax.jit(head.init)(KEY, x_BTC, None)
    kept = jax.jit(head.apply)(variables, x_BTC, KEY)[..., 0]
    np.testing.assert_allclose(kept[:, 7::8].mean(0), 1, atol=0.15)
    # A share of n weights, each kept or not at 1/2, has the variance 1/n.
    np.testing.assert_allclose(kept[:, 7::8].var(0) * np.array([8, 16, 24, 32]), 1, atol=0.6)


@pytest.mark.parametrize(
    ("changes", "platform", "expected"),
    [
        ({}, "cpu", 4),  # 1.5 MiB a sequence, and 64 of them
        ({}, "gpu", 0),
        ({"dtype": "bfloat16"}, "cpu", 8),
        ({"batch_size": 4}, "cpu", 0),
        ({"batch_size": 7}, "cpu", 1),
        ({"n_embd": 6000}, "cpu", 1),
        ({"n_layer": 4, "n_embd": 128, "n_head": 4, "block_size": 128, "batch_size": 32}, "cpu", 0),
    ],
)
def test_as_many_sequences_at_once_as_fit_the_cache(changes, platform, expected):
    run_config = PRESETS["shakespeare"].replace(**{"dtype": "float32", **changes})
    assert micro_batch_size(run_config, platform) == expected


def test_a_rung_of_the_lecture_is_computed_as_a_whole():
    run_config = PRESETS["bigram"].replace(batch_size=2**16, block_size=64)
    assert micro_batch_size(run_config, "cpu") == 0


def test_initial_values_compiled_quickly_are_the_same():
    """Every supported JAX must know the option."""
    model_config = PRESETS["notebook"].replace(vocab_size=11, n_layer=1).model
    model = GPT(model_config)
    quick = jax.jit(partial(init_params, model), compiler_options=compile_once_options("cpu"))(KEY)
    same(quick, jax.jit(partial(init_params, model))(KEY))
    assert compile_once_options("gpu") is None
