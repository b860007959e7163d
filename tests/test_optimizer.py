import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import TrainConfig
from gptjax.model import GPT
from gptjax.optimizer import decay_mask, learning_rate_schedule, make_optimizer
from gptjax.training import init_params

from conftest import tiny_config

CONFIG = TrainConfig(max_iters=1000, warmup_iters=99, learning_rate=1.0, min_lr=0.1)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.01), (49, 0.5), (98, 0.99), (99, 1.0), (99 + 901 // 2, 0.551), (1000, 0.1)],
)
def test_schedule_values(step, rate):
    assert float(learning_rate_schedule(CONFIG)(step)) == pytest.approx(rate, abs=1e-3)


def test_schedule_of_a_short_run_warms_up_over_a_tenth_and_still_ends_at_the_floor():
    schedule = learning_rate_schedule(TrainConfig(max_iters=20, learning_rate=1.0, min_lr=0.1))
    rates = [float(schedule(s)) for s in range(21)]
    assert rates[0] == pytest.approx(1 / 3)
    assert rates[2] == pytest.approx(1.0)
    assert rates[20] == pytest.approx(0.1)
    one = learning_rate_schedule(TrainConfig(max_iters=1, learning_rate=1.0, min_lr=0.1))
    assert float(one(0)) == pytest.approx(1.0)


def test_a_floor_as_high_as_the_peak_is_a_constant_rate():
    config = TrainConfig(warmup_iters=0, learning_rate=0.5, min_lr=0.5)
    assert {float(learning_rate_schedule(config)(s)) for s in (0, 1, 10, 5000)} == {0.5}
    zero = TrainConfig(warmup_iters=0, learning_rate=0.0, min_lr=0.0)
    assert float(learning_rate_schedule(zero)(3)) == 0.0


def test_matrices_decay_and_vectors_do_not_even_where_all_heads_biases_are_a_matrix():
    params = init_params(GPT(tiny_config(qkv_bias=True).model), jax.random.key(0))
    mask = decay_mask(params)
    for path, decays in jax.tree_util.tree_leaves_with_path(mask):
        assert decays == (path[-1].key in ("kernel", "embedding"))
    assert params["block_0"]["attn"]["heads"]["query"]["bias"].ndim == 2
    assert not mask["block_0"]["attn"]["heads"]["query"]["bias"]


def test_a_parameter_of_unknown_kind_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="mlp/gate"):
        decay_mask({"mlp": {"gate": jnp.zeros(3)}})


def test_zero_gradients_move_only_what_decays():
    config = TrainConfig(weight_decay=0.1, learning_rate=1.0, min_lr=1.0, warmup_iters=0)
    params = {"fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decay, bias in (("matrices", 0.0), ("all", -0.1)):
        optimizer = make_optimizer(TrainConfig(**vars(config) | {"decay": decay}))
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        np.testing.assert_allclose(updates["fc"]["kernel"], -0.1, rtol=1e-6)
        np.testing.assert_allclose(updates["fc"]["bias"], bias, rtol=1e-6)


def test_updates_are_adamw_written_out():
    """Three updates of one matrix against the algorithm in NumPy, with a gradient over the clip."""
    config = TrainConfig(
        max_iters=100,
        learning_rate=0.1,
        min_lr=0.1,
        warmup_iters=0,
        weight_decay=0.5,
        beta1=0.9,
        beta2=0.99,
        grad_clip=1.0,
    )
    optimizer = make_optimizer(config)
    w = np.array([[1.0, -2.0]])
    params = {"kernel": jnp.asarray(w, jnp.float32)}
    state = optimizer.init(params)
    mean = square = np.zeros_like(w)
    for t, g in enumerate(
        [np.array([[3.0, 4.0]]), np.array([[0.1, 0.2]]), np.array([[-9.0, 0.0]])]
    ):
        updates, state = optimizer.update({"kernel": jnp.asarray(g, jnp.float32)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        g = g / max(1.0, np.linalg.norm(g))
        mean, square = 0.9 * mean + 0.1 * g, 0.99 * square + 0.01 * g**2
        unbiased = mean / (1 - 0.9 ** (t + 1)), square / (1 - 0.99 ** (t + 1))
        w = w - 0.1 * (unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8) + 0.5 * w)
        np.testing.assert_allclose(params["kernel"], w, rtol=1e-5)


def test_no_clipping_at_zero():
    """Adam does not see a gradient's size, so the first moment is looked at."""
    params = {"kernel": jnp.ones((1, 1))}
    gradient = {"kernel": jnp.full((1, 1), 100.0)}
    for clip, moment in ((0.0, 10.0), (1.0, 0.1)):
        optimizer = make_optimizer(TrainConfig(grad_clip=clip))
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        moments = [x for x in jax.tree.leaves(state) if x.shape == (1, 1)]
        np.testing.assert_allclose(moments[0], moment, rtol=1e-5)
