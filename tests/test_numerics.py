"""Whatever a program's JAX settings, the library's numbers are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.data import sample_batch
from gptjax.inference.generation import generate
from gptjax.inference.scoring import score
from gptjax.model import GPT
from gptjax.training import evaluate, init_state, make_keys, make_train_loop, make_train_step

from conftest import tiny_config

IDS = np.arange(200) % 11


def numbers():
    """Computes with the library as a program would: a few updates, two losses and a text."""
    run_config = tiny_config(dropout=0.1)
    model, keys, tokens = GPT(run_config.model), make_keys(3), jnp.asarray(IDS)
    state = jax.jit(lambda key: init_state(model, run_config, key))(keys.params)
    step = jax.jit(make_train_step(model, run_config))
    for number in range(2):
        batch = sample_batch(tokens, keys.data, number, 4, 8)
        state, metrics = step(state, batch, keys.dropout)
    state, _ = make_train_loop(model, run_config)(state, tokens, keys, 4)
    key = jax.random.key(1, impl="threefry2x32")
    text = generate(model, state.params, IDS[None, :3], key, max_new_tokens=12, top_p=0.9)
    loss = evaluate(model, state.params, tokens)
    return state, metrics, text, loss, score(model, state.params, IDS, stride=4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_threefry_partitionable", False),
        ("jax_default_prng_impl", "rbg"),
        ("jax_numpy_dtype_promotion", "strict"),
    ],
)
def test_a_programs_settings_change_no_number(name, value):
    expected = numbers()
    before = getattr(jax.config.values[name], "value", jax.config.values[name])
    jax.config.update(name, value)
    try:
        found = numbers()
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        assert {x.dtype for x in jax.tree.leaves(found[0])} <= {np.dtype("i4"), np.dtype("f4")}
    finally:
        jax.config.update(name, before)
