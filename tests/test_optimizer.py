import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import tree_leaves_with_path

from gptjax.config import TrainConfig
from gptjax.optimizer import decay_mask, direction_of, learning_rate_schedule, make_optimizer

from conftest import init, tiny_config

CONFIG = TrainConfig(max_iters=1000, warmup_iters=99, learning_rate=1.0, min_lr=0.1)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.01), (49, 0.5), (98, 0.99), (99, 1.0), (1000, 0.1), (2000, 0.1)]
)
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_both_schedules_warm_up_and_end_alike(schedule, step, rate):
    train_config = dataclasses.replace(CONFIG, schedule=schedule)
    assert float(learning_rate_schedule(train_config)(step)) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize(("schedule", "quarter"), [("cosine", 0.8682), ("linear", 0.775)])
def test_a_quarter_of_the_way_down(schedule, quarter):
    train_config = dataclasses.replace(CONFIG, schedule=schedule, warmup_iters=100, max_iters=1100)
    assert float(learning_rate_schedule(train_config)(100 + 250)) == pytest.approx(
        quarter, abs=1e-4
    )


def test_schedule_of_a_short_run_warms_up_over_a_tenth_and_still_ends_at_the_floor():
    schedule = learning_rate_schedule(TrainConfig(max_iters=20, learning_rate=1.0, min_lr=0.1))
    rates = [float(schedule(s)) for s in range(21)]
    assert rates[0] == pytest.approx(1 / 3)
    assert rates[2] == pytest.approx(1.0)
    assert rates[20] == pytest.approx(0.1)
    one = learning_rate_schedule(TrainConfig(max_iters=1, learning_rate=1.0, min_lr=0.1))
    assert float(one(0)) == pytest.approx(1.0)


def test_a_floor_as_high_as_the_peak_is_a_constant_rate():
    train_config = TrainConfig(warmup_iters=0, learning_rate=0.5, min_lr=0.5)
    assert {float(learning_rate_schedule(train_config)(s)) for s in (0, 1, 10, 5000)} == {0.5}
    zero = TrainConfig(warmup_iters=0, learning_rate=0.0, min_lr=0.0)
    assert float(learning_rate_schedule(zero)(3)) == 0.0


def test_matrices_decay_and_vectors_do_not_even_where_all_heads_biases_are_a_matrix():
    params = init(tiny_config(qkv_bias=True).model, jax.random.key(0))
    mask = decay_mask(params)
    for path, decays in tree_leaves_with_path(mask):
        assert decays == (path[-1].key in ("kernel", "embedding"))
    assert params["block_0"]["attn"]["heads"]["query"]["bias"].ndim == 2
    assert not mask["block_0"]["attn"]["heads"]["query"]["bias"]


def test_a_parameter_of_unknown_kind_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="mlp/gate"):
        decay_mask({"mlp": {"gate": jnp.zeros(3)}})


def test_zero_gradients_move_only_what_decays():
    train_config = TrainConfig(weight_decay=0.1, learning_rate=1.0, min_lr=1.0, warmup_iters=0)
    params = {"fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decay, bias in (("matrices", 0.0), ("all", -0.1)):
        optimizer = make_optimizer(TrainConfig(**vars(train_config) | {"decay": decay}))
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        np.testing.assert_allclose(updates["fc"]["kernel"], -0.1, rtol=1e-6)
        np.testing.assert_allclose(updates["fc"]["bias"], bias, rtol=1e-6)


def test_updates_are_adamw_written_out():
    """Three updates of one matrix against the algorithm in NumPy, with a gradient over the clip."""
    train_config = TrainConfig(
        max_iters=100,
        learning_rate=0.1,
        min_lr=0.1,
        warmup_iters=0,
        weight_decay=0.5,
        beta1=0.9,
        beta2=0.99,
        grad_clip=1.0,
    )
    optimizer = make_optimizer(train_config)
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
    """Adam's update does not depend on a gradient's size, so compare the first moment."""
    params = {"kernel": jnp.ones((1, 1))}
    gradient = {"kernel": jnp.full((1, 1), 100.0)}
    for clip, moment in ((0.0, 10.0), (1.0, 0.1)):
        optimizer = make_optimizer(TrainConfig(grad_clip=clip))
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        moments = [x for x in jax.tree.leaves(state) if x.shape == (1, 1)]
        np.testing.assert_allclose(moments[0], moment, rtol=1e-5)


def test_the_state_has_one_structure_whatever_the_values():
    """So that a resume can change these values; the kind of optimizer is not one of them."""
    params = init(tiny_config().model, jax.random.key(0))

    def paths(**changes):
        state = jax.eval_shape(make_optimizer(TrainConfig(**changes)).init, params)
        return [(jax.tree_util.keystr(p), x.shape) for p, x in tree_leaves_with_path(state)]

    some = paths()
    for changes in (
        {"grad_clip": 0.0},
        {"decay": "all"},
        {"weight_decay": 0.0},
        {"schedule": "linear"},
        {"warmup_iters": 0, "learning_rate": 0.0, "min_lr": 0.0},
        {"beta1": 0.0, "beta2": 0.0},
    ):
        assert paths(**changes) == some, changes


def test_muon_is_for_the_matrices_between_embeddings_and_output():
    params = init(tiny_config(n_layer=2, qkv_bias=True).model, jax.random.key(0))
    for path, direction in tree_leaves_with_path(direction_of(params)):
        names = [key.key for key in path]
        inner = names[0].startswith("block_") and names[-1] == "kernel"
        assert direction == ("muon" if inner else "adam"), names


def test_muons_update_has_equal_singular_values_and_the_size_of_adams():
    """For (H, C, D), all heads together; the others use Adam, whose first update is a sign."""
    train_config = TrainConfig(
        optimizer="muon", learning_rate=1.0, min_lr=1.0, warmup_iters=0, weight_decay=0.0
    )
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "block_0": {
            "query": {"kernel": jax.random.normal(keys[0], (4, 32, 8))},
            "fc": {"kernel": jax.random.normal(keys[1], (32, 128)), "bias": jnp.ones(128)},
            "proj": {"kernel": jax.random.normal(keys[2], (128, 32))},
        },
        "lm_head": {"kernel": jax.random.normal(keys[3], (32, 65))},
    }
    optimizer = make_optimizer(train_config)
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    block = updates["block_0"]
    heads = block["query"]["kernel"].transpose(1, 0, 2).reshape(32, 32)
    for matrix in (heads, block["fc"]["kernel"], block["proj"]["kernel"]):
        sizes = np.linalg.svd(matrix, compute_uv=False) / (0.2 * max(matrix.shape) ** 0.5)
        assert sizes.max() < 1.3
        assert np.median(sizes) > 0.6
        assert float(jnp.sqrt((matrix**2).mean())) == pytest.approx(0.2, rel=0.25)
    for adams in (block["fc"]["bias"], updates["lm_head"]["kernel"]):
        np.testing.assert_allclose(jnp.abs(adams), 1, rtol=1e-2)  # epsilon, under a small gradient


def test_muon_descends_where_the_gradient_says():
    train_config = TrainConfig(optimizer="muon", warmup_iters=0, weight_decay=0.0)
    params = {"block_0": {"kernel": jnp.eye(4)}}
    grads = {"block_0": {"kernel": jnp.diag(jnp.array([3.0, -2.0, 1.0, -1.0]))}}
    optimizer = make_optimizer(train_config)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert (jnp.sign(jnp.diag(updates["block_0"]["kernel"])) == jnp.array([-1, 1, -1, 1])).all()
