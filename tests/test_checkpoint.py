import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.errors import RunError
from gptjax.model import GPT
from gptjax.store import checkpoint, listing, manifest
from gptjax.training import init_params, init_state, make_keys, make_train_loop

from conftest import damage_newest, tiny_config

CONFIG = tiny_config()
MODEL = GPT(CONFIG.model)
KEYS = make_keys(0)
INIT = jax.jit(lambda key: init_state(MODEL, CONFIG, key))
ABSTRACT = jax.eval_shape(INIT, KEYS.params)
TOKENS = jnp.arange(200, dtype=jnp.uint8) % 11


def state_at(step):
    return INIT(KEYS.params).replace(step=jnp.int32(step))


def save(directory, losses, keep=2):
    """Saves a state per (step, validation loss)."""
    saver = checkpoint.Saver(directory, keep)
    for step, val_loss in losses:
        saver.save(state_at(step), val_loss)
    saver.wait()


def steps(directory):
    return [c.step for c in listing.list_checkpoints(directory)[0]]


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def test_a_state_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, [(7, 1.5)])
    assert_same(checkpoint.load_state(tmp_path / "7", ABSTRACT), state_at(7))


def test_a_checkpoint_of_an_optimizer_that_had_no_link_for_clipping_is_read(tmp_path):
    """Version 0.1.0 omitted the clipping's state if grad_clip was 0, as in a rung's run."""
    state = state_at(7)
    assert jax.tree.leaves(state.opt_state[0]) == []
    saver = checkpoint.Saver(tmp_path, keep=1)
    saver.save(state.replace(opt_state=state.opt_state[1:]), 1.5)
    saver.wait()
    loaded = checkpoint.load_state(tmp_path / "7", ABSTRACT)
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    assert_same(loaded, state)


def test_parameters_come_back_without_the_optimizer(tmp_path):
    """Even when the optimizer's files are gone."""
    save(tmp_path, [(7, 1.5)])
    shutil.rmtree(tmp_path / "7" / "opt_state")
    params = checkpoint.load_params(tmp_path / "7", ABSTRACT.params)
    assert_same(params, state_at(7).params)


def test_training_goes_on_while_a_save_is_under_way_without_reaching_into_it(tmp_path):
    """The state is donated: the next update overwrites the buffers that are being saved."""
    state, loop = INIT(KEYS.params), make_train_loop(MODEL, CONFIG)
    saver = checkpoint.Saver(tmp_path, keep=9)
    expected = {}
    for step in range(1, 6):
        state, _ = loop(state, TOKENS, KEYS, step)
        expected[step] = jax.tree.map(np.array, state)
        saver.save(state, None)
    saver.wait()
    for step, there in expected.items():
        assert_same(checkpoint.load_state(tmp_path / str(step), ABSTRACT), there)


def test_the_newest_and_the_best_stay(tmp_path):
    save(tmp_path, [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, None), (6, 2.5)])
    assert steps(tmp_path) == [2, 5, 6]
    best = listing.best(listing.list_checkpoints(tmp_path)[0])
    assert best is not None
    assert (best.step, best.val_loss) == (2, 1.0)
    assert not list(tmp_path.glob("[tu]*-*")), "nothing half done is left"


def test_the_earliest_of_equally_good_ones_is_the_best(tmp_path):
    save(tmp_path, [(1, 1.0), (2, 1.0), (3, 1.0)], keep=1)
    assert steps(tmp_path) == [1, 3]


def test_a_step_saved_twice_is_there_once(tmp_path):
    save(tmp_path, [(3, 1.0)])
    save(tmp_path, [(3, 0.5)])
    assert [c.val_loss for c in listing.list_checkpoints(tmp_path)[0]] == [0.5]


def make_run(folder):
    """The folder that damage_newest expects, with checkpoints/."""
    save(folder / "checkpoints", [(1, 2.0), (2, 1.0)])
    return folder


@pytest.mark.parametrize(
    "how", ["truncated", "flipped", "empty", "missing file", "missing manifest", "gone"]
)
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(tmp_path, how):
    run = make_run(tmp_path)
    damage_newest(run, how)
    told = []
    found = checkpoint.newest_whole(
        run / "checkpoints", lambda p: checkpoint.load_state(p, ABSTRACT), told.append
    )
    assert found is not None
    assert found[0].step == 1
    assert_same(found[1], state_at(1))
    assert len(told) == (how != "gone")
    assert all("checkpoints/2" in line for line in told)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "val_loss": "x", "files": {}}',
        '{"format": 1, "val_loss": 1.0, "files": {"../../secret": "0"}}',
        '{"format": 1, "val_loss": 1.0, "files": {"/etc/passwd": "0"}}',
    ],
)
def test_a_manifest_that_is_none_is_damage(tmp_path, manifest):
    run = make_run(tmp_path)
    (run / "checkpoints" / "2" / "manifest.json").write_text(manifest)
    found, problems = listing.list_checkpoints(run / "checkpoints")
    assert [c.step for c in found] == [1]
    assert len(problems) == 1


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    save(tmp_path, [(1, 2.0)])
    wider = GPT(tiny_config(n_embd=32).model)
    shapes = jax.eval_shape(lambda key: init_params(wider, key), KEYS.params)
    with pytest.raises(
        manifest.DamagedError, match="does not fit this run's model: params/block_0"
    ):
        checkpoint.load_params(tmp_path / "1", shapes)


def test_what_a_killed_process_left_half_done_is_cleared(tmp_path):
    (tmp_path / "tmp-9").mkdir(parents=True)
    (tmp_path / "unused-8").mkdir()
    (tmp_path / "mine-8").mkdir()
    save(tmp_path, [(1, 2.0)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "mine-8"]


def test_newer_ones_are_set_aside_not_lost(tmp_path):
    save(tmp_path, [(1, 2.0), (2, 1.0)])
    listing.set_newer_aside(tmp_path, 1)
    assert steps(tmp_path) == [1]
    assert (tmp_path / "damaged-2" / "manifest.json").is_file()


def test_a_folder_that_vanishes_is_reported_with_its_path(tmp_path):
    folder = tmp_path / "checkpoints"
    saver = checkpoint.Saver(folder, keep=2)
    saver.save(state_at(1), 1.0)
    saver.wait()
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    with pytest.raises(RunError, match=str(folder)):
        saver.save(state_at(2), 1.0)
    saver.wait()  # told once


TWO_DEVICES = """
import sys, jax, jax.numpy as jnp
from pathlib import Path
from jax.sharding import NamedSharding, PartitionSpec
from gptjax.store import checkpoint
from test_checkpoint import state_at
assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("x",))
def place(leaf):
    axes = PartitionSpec("x") if leaf.ndim and leaf.shape[0] % 2 == 0 else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh, axes))
state = jax.tree.map(place, state_at(4))
assert any(len(leaf.sharding.device_set) == 2 and not leaf.is_fully_replicated
           for leaf in jax.tree.leaves(state))
saver = checkpoint.Saver(Path(sys.argv[1]), 2)
saver.save(state, 1.0)
saver.wait()
"""


def test_a_checkpoint_of_two_devices_opens_on_one(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {
        # With this process's flags; otherwise the state would differ in its last bits.
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
    }
    subprocess.run([sys.executable, "-c", TWO_DEVICES, str(tmp_path)], env=environment, check=True)
    assert jax.device_count() == 1
    assert_same(checkpoint.load_state(tmp_path / "4", ABSTRACT), state_at(4))


def test_there_is_no_pickle_in_a_checkpoint(tmp_path):
    save(tmp_path, [(1, 2.0)])
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        assert file.suffix not in {".pkl", ".pickle", ".pt", ".npz"}
        assert not file.read_bytes().startswith(b"\x80\x04"), "a pickle's first bytes"
    json.loads((tmp_path / "1" / "manifest.json").read_text())
