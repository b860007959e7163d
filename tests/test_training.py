import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.data import Batch, sample_batch
from gptjax.loss import cross_entropy, token_losses
from gptjax.model import GPT
from gptjax.optimizer import learning_rate_schedule
from gptjax.training import (
    evaluate,
    make_keys,
    make_train_loop,
    make_train_step,
)

from conftest import fresh_state, init, run_model, tiny_config

TOKENS = jax.random.randint(jax.random.key(7), (300,), 0, 11).astype(jnp.uint8)
KEYS = make_keys(1)


def start(run_config):
    return GPT(run_config.model), fresh_state(run_config, KEYS.params)


def run(run_config, stops):
    """Trains to each of `stops` in turn; returns the state and the last metrics."""
    model, state = start(run_config)
    loop = make_train_loop(model, run_config)
    metrics = None
    for stop in stops:
        state, metrics = loop(state, TOKENS, KEYS, stop)
    return state, metrics


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x == y).all()


def test_overfits_one_batch():
    run_config = tiny_config(max_iters=150)
    model, state = start(run_config)
    batch = sample_batch(TOKENS, KEYS.data, 0, 4, 8)
    step = jax.jit(make_train_step(model, run_config))
    for _ in range(150):
        state, metrics = step(state, batch, KEYS.dropout)
    assert metrics.loss < 0.1 < math.log(11)


@pytest.mark.slow
def test_jit_equals_no_jit():
    run_config = tiny_config(dropout=0.2)
    model, state = start(run_config)
    batch = sample_batch(TOKENS, KEYS.data, 0, 4, 8)
    step = make_train_step(model, run_config)
    plain, jitted = (s(state, batch, KEYS.dropout) for s in (step, jax.jit(step)))
    # Fusion reorders sums, and Adam's first update is a sign, so compare its input.
    np.testing.assert_allclose(plain[1], jitted[1], rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(plain[0].opt_state), jax.tree.leaves(jitted[0].opt_state), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_accumulated_micro_batches_equal_one_big_batch():
    """The gradient's moments are compared, not parameters: Adam divides tiny differences by tiny
    gradients."""
    batch = sample_batch(TOKENS, KEYS.data, 0, 8, 8)
    results = []
    for size, parts, at_once in ((8, 1, 0), (2, 4, 0), (4, 2, 2)):
        run_config = tiny_config(
            batch_size=size, gradient_accumulation_steps=parts, micro_batch_size=at_once
        )
        model, state = start(run_config)
        new, metrics = jax.jit(make_train_step(model, run_config))(state, batch, KEYS.dropout)
        results.append((metrics, new.opt_state))
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(results[0][1]))
    for other in results[1:]:
        for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * scale)


def test_micro_batches_draw_different_dropout():
    """A batch of two equal halves: its loss is the mean of two draws, each with its own key."""
    half = sample_batch(TOKENS, KEYS.data, 0, 2, 8)
    twice = Batch(*(jnp.concatenate([a, a]) for a in half))
    one = tiny_config(dropout=0.5, batch_size=2)
    two = one.replace(gradient_accumulation_steps=2)
    model, state = start(one)
    _, both = jax.jit(make_train_step(model, two))(state, twice, KEYS.dropout)
    same = one.replace(batch_size=4, micro_batch_size=2)
    _, again = jax.jit(make_train_step(model, same))(state, twice, KEYS.dropout)
    assert float(again.loss) == float(both.loss)
    step_key = jax.random.fold_in(KEYS.dropout, 0)
    draws = [
        float(cross_entropy(run_model(one.model, state.params, half.x_BT, key), half.y_BT))
        for key in (jax.random.fold_in(step_key, i) for i in range(2))
    ]
    assert abs(draws[0] - draws[1]) > 1e-4
    assert float(both.loss) == pytest.approx(np.mean(draws), rel=1e-5)


def test_result_does_not_depend_on_the_steps_per_dispatch():
    run_config = tiny_config(dropout=0.1)
    states = [run(run_config, stops)[0] for stops in ([12], [1, 2, 12], range(1, 13))]
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])
    assert int(states[0].step) == 12


def test_loop_is_the_step_repeated():
    """The loop's batches and keys are those that a user of the step would choose."""
    run_config = tiny_config(dropout=0.1)
    model, state = start(run_config)
    step = jax.jit(make_train_step(model, run_config))
    for s in range(3):
        state, metrics = step(state, sample_batch(TOKENS, KEYS.data, s, 4, 8), KEYS.dropout)
    looped, looped_metrics = run(run_config, [3])
    np.testing.assert_allclose(metrics, looped_metrics.last, rtol=1e-5)
    assert int(state.step) == int(looped.step) == 3
    rate = learning_rate_schedule(run_config.train)(
        2
    )  # of the third update, the last of the warm-up
    assert float(looped_metrics.last.learning_rate) == pytest.approx(float(rate), rel=1e-6)


def test_same_seed_same_run_and_another_seed_another():
    run_config = tiny_config(dropout=0.1)
    assert_same(run(run_config, [5])[0], run(run_config, [5])[0])
    other = init(run_config.model, make_keys(2).params)
    assert (other["wte"]["embedding"] != start(run_config)[1].params["wte"]["embedding"]).any()


def test_dropout_differs_from_step_to_step():
    run_config = tiny_config(dropout=0.5, learning_rate=0.0, min_lr=0.0, weight_decay=0.0)
    model, state = start(run_config)
    batch = sample_batch(TOKENS, KEYS.data, 0, 4, 8)
    step = jax.jit(make_train_step(model, run_config))
    state, first = step(state, batch, KEYS.dropout)
    _, second = step(state, batch, KEYS.dropout)
    assert first.loss != second.loss


def test_a_loss_that_is_not_finite_stops_the_loop_and_is_not_applied():
    run_config = tiny_config()
    model, state = start(run_config)
    loop = make_train_loop(model, run_config)
    state, _ = loop(state, TOKENS, KEYS, 2)
    poisoned = jax.tree.map(lambda x: x.at[0].set(jnp.nan), state.params["wpe"])
    state = state.replace(params=state.params | {"wpe": poisoned})
    before = jax.tree.map(np.asarray, state)
    after, metrics = loop(jax.tree.map(jnp.array, state), TOKENS, KEYS, 10)
    assert int(after.step) == 2
    assert math.isnan(metrics.last.loss)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(x, y)


def test_state_is_donated():
    run_config = tiny_config()
    model, state = start(run_config)
    make_train_loop(model, run_config)(state, TOKENS, KEYS, 1)
    assert state.params["wte"]["embedding"].is_deleted()


@pytest.mark.parametrize("length", [2, 9, 10, 64, 73, 300])
def test_evaluation_counts_every_target_once(length):
    """Against a plain loop over consecutive windows, with a last window of any length."""
    run_config = tiny_config()
    model, state = start(run_config)
    tokens = TOKENS[:length]
    losses = []
    for first in range(0, length - 1, 8):
        window = tokens[first : first + 9].astype(jnp.int32)[None]
        losses += list(
            token_losses(run_model(run_config.model, state.params, window[:, :-1]), window[:, 1:])[
                0
            ]
        )
    assert len(losses) == length - 1
    assert evaluate(model, state.params, tokens) == pytest.approx(float(np.mean(losses)), rel=1e-5)


def test_capped_evaluation_takes_windows_spread_over_the_split():
    """The text changes halfway, and a limited evaluation must include both halves."""
    run_config = tiny_config()
    model, state = start(run_config)
    tokens = jnp.concatenate([jnp.zeros(400, jnp.uint8), jnp.full(401, 5, jnp.uint8)])
    whole = evaluate(model, state.params, tokens)
    assert evaluate(model, state.params, tokens, max_windows=10) == pytest.approx(whole, abs=0.02)
    first = evaluate(model, state.params, tokens[:400])
    assert abs(whole - first) > 1e-3
    assert evaluate(model, state.params, tokens, max_windows=1000) == whole
