"""Training a part of a model: frozen parameters do not change and have no moments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from gptjax.backends.execution import suited
from gptjax.config import TrainConfig
from gptjax.errors import ConfigError
from gptjax.model import GPT
from gptjax.optimizer import trained_mask
from gptjax.store.runs import abstract_params
from gptjax.training import init_state, make_keys, make_train_loop

from conftest import tiny, tiny_config

KEYS = make_keys(3)
TOKENS = jnp.arange(1000) * 7 % 11
PARAMS = abstract_params(GPT(tiny_config(n_layer=3).model))


def paths(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


@pytest.mark.parametrize(
    ("trainable", "accumulation", "scan"),
    [("last:2", 2, None), ("ln", 1, True), ("mlp,wpe", 1, None)],
)
def test_what_is_frozen_is_bit_for_bit_the_same_and_has_no_moments(trainable, accumulation, scan):
    run_config = tiny_config(
        n_layer=3,
        dropout=0.1,
        trainable=trainable,
        gradient_accumulation_steps=accumulation,
        scan_layers=scan,
    )
    model = suited(GPT(run_config.model), run_config, "cpu")
    state = jax.jit(partial(init_state, model, run_config))(KEYS.params)
    # A negative zero: adding an update of zero would remove the sign.
    state = state.replace(params=jax.tree.map(lambda x: jnp.where(x == 0, -0.0, x), state.params))
    before = jax.device_get(state.params)
    after, metrics = make_train_loop(model, run_config)(state, TOKENS, KEYS, 3)
    assert float(metrics.last.grad_norm) > 0
    mask = trained_mask(before, trainable)
    trained = 0
    for (path, old), (_, new), is_trained in zip(
        paths(before), paths(after.params), jax.tree.leaves(mask), strict=True
    ):
        same = old.tobytes() == np.asarray(new).tobytes()
        assert same != is_trained, path
        trained += is_trained * old.size
    moments = sum(x.nbytes for x in jax.tree.leaves(after.opt_state) if x.ndim)
    scalars = [x for x in jax.tree.leaves(after.opt_state) if not x.ndim]
    assert moments == 8 * trained
    assert len(scalars) == 2, "Adam's count and the schedule's"


def test_the_norm_that_is_clipped_is_of_what_is_trained():
    """With a limit that the norm of the whole gradient would far exceed."""
    updates = []
    for bound in (0.0, 1e-3):
        run_config = tiny_config(n_layer=1, trainable="ln_f", grad_clip=bound)
        model = GPT(run_config.model)
        state = jax.jit(partial(init_state, model, run_config))(KEYS.params)
        _, metrics = make_train_loop(model, run_config)(state, TOKENS, KEYS, 1)
        updates.append(float(metrics.last.grad_norm))
    whole = tiny_config(n_layer=1)
    model = GPT(whole.model)
    state = jax.jit(partial(init_state, model, whole))(KEYS.params)
    _, metrics = make_train_loop(model, whole)(state, TOKENS, KEYS, 1)
    assert updates[0] == updates[1] < 0.5 * float(metrics.last.grad_norm)


@pytest.mark.parametrize(
    ("trainable", "some", "others"),
    [
        ("all", ["wte/embedding", "block_0/ln_1/scale"], []),
        ("last:1", ["block_2/mlp/fc/kernel", "ln_f/scale", "lm_head/bias"], ["block_1", "wte"]),
        ("ln", ["block_0/ln_2/bias", "ln_f/bias"], ["mlp", "lm_head"]),
        ("attn/proj,wte", ["block_1/attn/proj/bias", "wte/embedding"], ["mlp", "heads", "wpe"]),
    ],
)
def test_parameters_are_named_by_their_paths(trainable, some, others):
    trained = [path for path, is_trained in paths(trained_mask(PARAMS, trainable)) if is_trained]
    assert set(some) <= set(trained)
    assert not [path for path in trained for other in others if other in path]


def test_what_names_nothing_is_refused():
    for item, message in (
        ("last:0", "from last:1 to last:3"),
        ("last:4", "from last:1 to last:3"),
        ("mpl", r"\(mpl\) names no parameter: give all, ln, last:N, or some of .*mlp"),
    ):
        with pytest.raises(ConfigError, match=message):
            trained_mask(PARAMS, item)
    for text in ("", "ln,", "last:", "last:x"):
        with pytest.raises(ConfigError, match="must be items joined by commas"):
            TrainConfig(trainable=text)
    with pytest.raises(ConfigError, match="scan_layers"):
        tiny_config(trainable="last:1", scan_layers=True)
    assert not tiny_config(n_layer=12, trainable="last:1").scans_layers


def test_the_flag_is_validated_before_anything_is_written(text_file, tmp_path, refused):
    flags = tiny("--data", text_file, "--out-dir", tmp_path / "run", "--trainable", "mpl")
    assert "--trainable (mpl) names no parameter" in refused(train, *flags)
    assert not (tmp_path / "run").exists()
