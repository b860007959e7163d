"""Meshes of simulated devices: the losses of one device, and the communication.

Each mesh trains in its own process, tests/mesh_worker.py.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from gptjax.backends import sharding
from gptjax.backends.mesh import MeshShape, check_shape, default_shape
from gptjax.config import GPTConfig, RunConfig
from gptjax.errors import InputError
from gptjax.muon import ITERATIONS
from gptjax.store import runs

ROOT = Path(__file__).parents[1]


def trained(mesh: str, path: Path) -> tuple[dict, str]:
    """The observations of tests/mesh_worker.py on this mesh, and its stderr."""
    devices = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    worker = [sys.executable, "tests/mesh_worker.py", mesh, str(path)]
    done = subprocess.run(worker, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stderr


def check_data_parallel(found: dict) -> None:
    """The gradient is summed over the devices, and little else."""
    many = found["adamw"]["many"]
    gradient = sum(size for name, (_, size) in many["sizes"].items() if name.startswith("params/"))
    by_kind = bytes_by_kind(many)
    assert gradient <= by_kind.pop("all-reduce") <= gradient + 1024
    assert not by_kind


def check_fully_sharded(found: dict) -> None:
    """Parameters and optimizer state in the rules are divided, and gathered for use.

    The others are biases of the residual stream's width, LayerNorm and counters.
    """
    for case in found:
        for name, (here, whole) in found[case]["many"]["sizes"].items():
            divided = name.endswith(("kernel", "embedding")) or "x" in name.split("/")[-1]
            assert here == (whole // 8 if divided else whole), name
    many, muon = found["adamw"]["many"], found["muon, accumulated"]["many"]
    # Once forward, once backward; XLA keeps what fits.
    assert params(many) * 0.9 <= bytes_by_kind(many)["all-gather"] <= 2.4 * params(many)
    # Muon has a stack of 8 matrices, one for each device, and one of 4, whose rows are divided. The
    # iterations need all rows of that one at their beginning and end, and of its squares.
    (stack,) = (x for name, (_, x) in muon["sizes"].items() if name.endswith("64x256"))
    added = bytes_by_kind(muon)["all-gather"] - params(muon)
    assert 0 < added <= 2 * stack + 3 * ITERATIONS * stack * 64 // 256
    assert 0 < bytes_by_kind(muon)["all-to-all"] <= params(muon)


def params(many: dict) -> int:
    """Bytes of the parameters that are divided, on all devices together."""
    return sum(
        whole
        for name, (here, whole) in many["sizes"].items()
        if name.startswith("params/") and here < whole
    )


def bytes_by_kind(many: dict) -> Counter:
    """Bytes that each kind of collective writes on a device."""
    by_kind: Counter = Counter()
    for kind, _, size in many["collectives"]:
        by_kind[kind] += size
    return by_kind


MESHES = {
    "data=8": check_data_parallel,
    "fsdp=8": check_fully_sharded,
    "data=4,tensor=2": None,
    "data=2,fsdp=2,tensor=2": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_trains_as_one_device(mesh, tmp_path):
    """AdamW, Muon and accumulated gradients. Dropout is on: other masks would change a loss."""
    found, stderr = trained(mesh, tmp_path / "seen.json")
    assert "rematerialization" not in stderr
    for case in found.values():
        assert case["same_start"], "initial values must be equal bit for bit"
        difference = np.abs(np.subtract(case["one"]["losses"], case["many"]["losses"]))
        assert difference[:5].max() < 5e-6
        assert difference.max() < 1e-3
        assert case["many"]["losses"][-1] < case["many"]["losses"][0] - 0.1
        gathered = {kind for kind, dtype, _ in case["many"]["collectives"] if dtype == "u32"}
        assert not gathered, "random bits must be drawn where they are used"
    if MESHES[mesh]:
        MESHES[mesh](found)


@pytest.mark.parametrize(
    ("text", "shape"),
    [("data=8", (8, 1, 1)), ("fsdp=4, data=2", (2, 4, 1)), ("tensor=1", (1, 1, 1))],
)
def test_a_mesh_is_read(text, shape):
    assert MeshShape.parse(text) == shape
    assert MeshShape.parse(str(MeshShape.parse(text))) == shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' must be one of data, fsdp, tensor"),
        ("8", "'8' must be one of"),
        ("data", "data= must be a whole number above 0"),
        ("data=0", "data=0 must be"),
        ("data=-2", "data=-2 must be"),
        ("data=2,data=4", "data is named twice"),
        ("pipe=2", "'pipe' must be one of"),
    ],
)
def test_a_wrong_mesh_is_refused(text, message):
    with pytest.raises(InputError) as caught:
        MeshShape.parse(text)
    assert message in str(caught.value)


def test_the_default_mesh_divides_the_batch():
    assert default_shape(12, 8) == (6, 1, 1)
    assert default_shape(64, 8) == (8, 1, 1)
    assert default_shape(7, 4) == (1, 1, 1)
    assert default_shape(12, 8, processes=2) == (6, 1, 1)


def test_each_process_must_get_sequences():
    with pytest.raises(
        InputError,
        match="12 sequences are computed at once, and cannot be divided among 8 processes",
    ):
        default_shape(12, 32, processes=8)
    assert default_shape(16, 32, processes=8) == (16, 1, 1)


@pytest.mark.parametrize(
    ("mesh", "sequences", "message"),
    [
        ("data=4", 64, "needs 4 devices, but there are 8: --mesh data=8 fits"),
        ("data=4", 12, "but there are 8: --mesh data=4,tensor=2 fits"),
        ("data=8", 12, "the sequences computed at once (12) must be divisible by data x fsdp (8)"),
        ("tensor=8", 64, "n_head (6) must be divisible by tensor (8); --mesh data=8 fits"),
        ("data=4,tensor=2", 7, "by data x fsdp (4); no mesh of 8 devices fits"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_with_one_that_does(mesh, sequences, message):
    with pytest.raises(InputError) as caught:
        check_shape(MeshShape.parse(mesh), GPTConfig(), sequences, 8)
    assert message in str(caught.value)
    fitting = re.search(r"--mesh (\S+) fits", str(caught.value))
    if fitting:
        check_shape(MeshShape.parse(fitting[1]), GPTConfig(), sequences, 8)


def test_the_rules_name_every_matrix():
    """Parameters without a rule are on every device, so they must be small."""
    mesh = AbstractMesh((1, 2, 2), MeshShape._fields)
    run_config = RunConfig(model=GPTConfig(qkv_bias=True, bias=True, head_bias=True))
    params = runs.abstract_params(runs.make_model(run_config))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_divided = any(sharding.spec_of(name, leaf.shape, mesh))
        assert is_divided == (leaf.ndim > 1 or "mlp/fc" in name), name
