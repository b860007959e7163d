"""The count of operations for the benchmarks' rates, against the traced model and XLA's count."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr

from benchmarks.arithmetic import matmul_rate
from gptjax.backends.flops import terms, train_flops
from gptjax.loss import cross_entropy
from gptjax.model import GPT, forward
from gptjax.training import init_params

from conftest import tiny_config

SHAPES = [
    {},
    {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 16, "qkv_bias": True},
    {"tie_embeddings": True, "vocab_size": 70, "head_bias": False},
]
BATCH = 3


def products(jaxpr):
    """Operations of all matrix products of a traced function, including those in nested calls."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            size = 2 * eqn.outvars[0].aval.size
            for axis in contracted:
                size *= eqn.invars[0].aval.shape[axis]
            total += size
        for value in eqn.params.values():
            if isinstance(value, ClosedJaxpr):
                total += products(value.jaxpr)
    return total


def losses(model_config):
    params = jax.eval_shape(partial(init_params, GPT(model_config)), jax.random.key(0))
    x_BT = jnp.zeros((BATCH, model_config.block_size), jnp.int32)
    return params, lambda p: cross_entropy(forward(GPT(model_config), p, x_BT), x_BT)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_terms_are_the_products_of_the_traced_model(shape):
    model_config = tiny_config(**shape).model
    params, loss = losses(model_config)
    tokens = BATCH * model_config.block_size
    forward_jaxpr = jax.make_jaxpr(loss)(params).jaxpr
    assert products(forward_jaxpr) == tokens * sum(term.forward for term in terms(model_config))
    both_jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(params).jaxpr
    assert products(both_jaxpr) == tokens * train_flops(model_config)


def test_xla_counts_as_many_and_what_is_left_out_besides():
    model_config = tiny_config(n_layer=3, n_head=4, n_embd=256, block_size=64).model
    params, loss = losses(model_config)
    analysis = jax.jit(jax.value_and_grad(loss)).lower(params).cost_analysis()
    ratio = analysis["flops"] / (BATCH * model_config.block_size * train_flops(model_config))
    assert 1.0 < ratio < 1.15, "softmax, LayerNorm and activations are the rest"


def test_a_shorter_context_has_fewer_scores():
    model_config = tiny_config().model
    assert (
        train_flops(model_config, tokens=4)
        < train_flops(model_config)
        == train_flops(model_config, tokens=8)
    )


def test_a_machines_rate_is_a_rate():
    assert 1e6 < matmul_rate("float32", size=64, seconds=0.05, turns=2) < 1e16
