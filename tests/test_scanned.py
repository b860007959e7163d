"""Scanned blocks give the same run and the same files as unrolled ones."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

import train
from gptjax import muon
from gptjax.backends import sharding
from gptjax.backends.execution import suited
from gptjax.backends.mesh import MeshShape
from gptjax.backends.scanned import in_memory, on_disk, stack, unstack
from gptjax.config import RunConfig
from gptjax.errors import ConfigError
from gptjax.model import GPT
from gptjax.presets import PRESETS
from gptjax.store import runs
from gptjax.training import init_state, make_keys, make_train_loop

from conftest import tiny_config

KEYS = make_keys(3)


def trained(run_config: RunConfig, steps: int = 10):
    """Losses, and the final state as stored on disk."""
    model = suited(GPT(run_config.model), run_config, "cpu")
    assert (model.execution.blocks is not None) == run_config.scans_layers
    state = jax.jit(partial(init_state, model, run_config))(KEYS.params)
    loop = make_train_loop(model, run_config)
    tokens = jnp.arange(1000) * 7 % 11
    losses = []
    for step in range(1, steps + 1):
        state, metrics = loop(state, tokens, KEYS, step)
        losses.append(float(metrics.last.loss))
    return losses, on_disk(run_config)(state)


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
def test_a_scanned_run_is_the_unrolled_one(optimizer):
    """Dropout is on, so different keys would change every loss."""
    run_config = tiny_config(n_layer=3, dropout=0.2, optimizer=optimizer)
    (losses, state), (scanned, same) = (
        trained(run_config.replace(scan_layers=scan)) for scan in (False, True)
    )
    assert losses[0] == scanned[0]
    np.testing.assert_allclose(losses, scanned, atol=1e-4)
    assert jax.tree.structure(state) == jax.tree.structure(same)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(same), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol=2e-2)


@pytest.mark.slow
def test_remat_in_a_scan_changes_nothing():
    run_config = tiny_config(n_layer=2, dropout=0.2, scan_layers=True)
    losses, _ = trained(run_config, 3)
    np.testing.assert_allclose(trained(run_config.replace(remat=True), 3)[0], losses, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stacked_and_back_is_the_same_state(optimizer):
    """Twelve blocks, because block_10 sorts before block_2."""
    run_config = tiny_config(n_layer=12, optimizer=optimizer)
    assert run_config.scans_layers
    state = jax.eval_shape(partial(runs.initial_state, run_config), KEYS.params)
    numbers = iter(range(10**6))
    state = jax.tree.map(lambda x: jnp.full(x.shape, next(numbers), x.dtype), state)
    stacked = in_memory(run_config, None)(state)
    assert stacked.params["blocks"]["mlp"]["fc"]["kernel"].shape == (12, 16, 64)
    back = on_disk(run_config)(stacked)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_muons_stacks_are_the_same_and_come_apart_again():
    shape = runs.abstract_params(GPT(tiny_config(n_layer=12).model))
    keys = iter(jax.random.split(KEYS.params, 10**3))
    blocks = {name: tree for name, tree in shape.items() if name.startswith("block_")}
    kernels = {
        name: {"mlp": {part: {"kernel": block["mlp"][part]["kernel"]} for part in ("fc", "proj")}}
        for name, block in blocks.items()
    }
    tree = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), kernels)
    unrolled, scanned = muon._stacks(tree), muon._stacks(stack(tree))
    jax.tree.map(np.testing.assert_array_equal, unrolled, scanned)
    back = unstack(muon._unstack(scanned, stack(tree)), 12)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_a_run_goes_on_in_the_other_form(run_copy, tmp_path, capsys):
    """Six steps unrolled; then to the end scanned, and also unrolled, with the same result."""
    other = shutil.copytree(run_copy, tmp_path / "other")
    losses = []
    for path, flags in ((run_copy, []), (other, ["--scan-layers"])):
        more = ["--resume", "--max-iters", "8", *flags]
        assert train.main(["--out-dir", str(path), *more]) == 0, capsys.readouterr().err
        losses.append(json.loads((path / "metrics.jsonl").read_text().splitlines()[-1]))
    assert abs(losses[0]["val_loss"] - losses[1]["val_loss"]) < 1e-5
    assert train.main(["--out-dir", str(other), *more[:2], "9", "--no-scan-layers"]) == 0


def test_the_programs_do_not_grow_with_depth():
    """The programs of initialization and update for XLA: their size sets the compile time."""
    sizes = []
    for n_layer in (3, 48):
        run_config = tiny_config(n_layer=n_layer, dropout=0.1, scan_layers=True)
        model = suited(GPT(run_config.model), run_config, "cpu")
        init = jax.jit(partial(init_state, model, run_config)).lower(KEYS.params)
        state = jax.eval_shape(partial(init_state, model, run_config), KEYS.params)
        update = make_train_loop(model, run_config).lower(state, jnp.zeros(100, int), KEYS, 1)
        sizes.append([len(lowered.as_text().splitlines()) for lowered in (init, update)])
    assert sizes[0] == sizes[1]


def test_blocks_are_divided_as_unrolled_with_every_layer_on_each_device():
    mesh = AbstractMesh((1, 2, 2), MeshShape._fields)
    params = runs.abstract_params(GPT(tiny_config(n_layer=3).model))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["block_0"]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        unrolled = sharding.spec_of(f"params/block_0/{name}", leaf.shape, mesh)
        scanned = sharding.spec_of(f"params/blocks/{name}", (3, *leaf.shape), mesh)
        assert tuple(scanned) == ((None, *unrolled) if unrolled else (None,)), name


def test_deep_models_are_scanned_and_rungs_never():
    assert PRESETS["gpt2"].scans_layers
    assert not PRESETS["shakespeare"].scans_layers
    with pytest.raises(ConfigError, match="scan_layers"):
        PRESETS["residual"].replace(scan_layers=True)
