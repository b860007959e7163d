"""A run opens on another machine: other numbers of devices, another dtype, another JAX."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import sample
import train
from gptjax.__main__ import main as check
from gptjax.config import TrainConfig
from gptjax.store import runs

from outcomes import final_state, metrics
from processes import ENVIRONMENT, call, saved_steps, train_flags

FIXTURES = Path(__file__).parent.parent / "fixtures"
OLD_RUNS = sorted(FIXTURES.glob("gptjax-*"))


def devices(n):
    """The environment of a process that sees `n` devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={n}"
    return ENVIRONMENT | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


@pytest.mark.slow
def test_a_bfloat16_run_of_two_devices_goes_on_with_one(tmp_path, text_file, capsys):
    path = tmp_path / "run"
    flags = train_flags(path, text_file, "--dtype", "bfloat16")
    status, out, err = call("train.py", *flags, env=devices(2))
    assert (status, err) == (0, "")
    assert "cpu: 2 x" in out
    assert {str(x.dtype) for x in final_state(path).params["wte"].values()} == {"float32"}
    assert train.main(["--out-dir", str(path), "--resume", "--max-iters", "8"]) == 0
    assert metrics(path)[-1]["step"] == 8
    assert check(["verify", str(path)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then", "dtype"), [(1, 8, "float32"), (8, 2, "bfloat16")], ids=str
)
def test_devices_and_dtypes(tmp_path, text_file, first, then, dtype):
    """A run is the same whatever the number of devices that train, save and resume it."""
    path, whole = tmp_path / "run", tmp_path / "whole"
    flags = ["--dtype", dtype, "--max-iters", 12]
    assert (
        call(
            "train.py",
            *train_flags(path, text_file, *flags, "--max-minutes", 1e-9),
            env=devices(first),
        )[0]
        == 0
    )
    resume = ["--out-dir", path, "--resume", "--max-minutes", 0]
    status, out, err = call("train.py", *resume, env=devices(then))
    assert (status, err) == (0, "")
    assert "resuming from step 1" in out
    status, out, err = call(
        "sample.py", "--out-dir", path, "--max-new-tokens", 3, env=devices(first)
    )
    assert status == 0
    assert train.main(train_flags(whole, text_file, *flags)) == 0
    a, b = (final_state(p).params["wte"]["embedding"] for p in (path, whole))
    # In bfloat16, each device rounds the sum over its own sequences, and Adam's steps have the same
    # size for large and small gradients: after 12 steps of 4e-3, weights can differ by some steps.
    atol = 1e-4 if dtype == "float32" else 0.02
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("old", OLD_RUNS, ids=lambda p: p.name)
def test_runs_of_earlier_versions_open(old, tmp_path, capsys):
    """The version and the JAX in a fixture's name wrote it; fixtures are never rewritten."""
    path = Path(shutil.copytree(old, tmp_path / "run"))
    text = FIXTURES / "text.txt"
    assert check(["verify", str(path)]) == 0
    capsys.readouterr()
    greedy = ["--temperature", "0", "--max-new-tokens", "20", "--prompt", "the "]
    assert sample.main(["--out-dir", str(path), *greedy]) == 0
    assert capsys.readouterr().out.startswith("the ")
    assert train.main(["--out-dir", str(path), "--eval-only", "--data", str(text)]) == 0
    last = json.loads((old / "metrics.jsonl").read_text().splitlines()[-1])
    printed = float(capsys.readouterr().out.split("validation loss ")[1].split()[0])
    assert printed == pytest.approx(last["val_loss"], abs=2e-3)
    more = last["step"] + 2
    flags = ["--resume", "--data", str(text), "--max-iters", str(more)]
    assert train.main(["--out-dir", str(path), *flags]) == 0
    assert saved_steps(path)[-1] == more


def test_there_are_runs_of_two_releases_of_jax():
    assert len({p.name.split("-jax-")[1] for p in OLD_RUNS}) >= 2
    size = sum(p.stat().st_size for p in FIXTURES.rglob("*") if p.is_file())
    assert size < 300_000


@pytest.mark.parametrize("place", ["config.json", "checkpoints/6/manifest.json"])
def test_a_run_of_a_later_version_says_which(run_copy, refused, place, capsys):
    stored = json.loads((run_copy / place).read_text())
    (run_copy / place).write_text(json.dumps(stored | {"format": 2, "version": "3.1.4"}))
    if place == "config.json":
        assert "written by gptjax 3.1.4" in refused(sample, "--out-dir", run_copy)
        return
    told = []
    assert runs.load_run(run_copy, "latest", told.append).step == 3
    assert "written by gptjax 3.1.4" in told[0]


def test_a_field_of_a_later_version_says_so_too(run_copy, refused):
    stored = json.loads((run_copy / "config.json").read_text())
    stored["config"]["model"]["n_experts"] = 8
    (run_copy / "config.json").write_text(json.dumps(stored | {"version": "3.1.4"}))
    error = refused(sample, "--out-dir", run_copy)
    assert "'n_experts'" in error
    assert "written by gptjax 3.1.4" in error


def test_a_config_that_lacks_this_version_s_newest_fields_opens(run_copy):
    stored = json.loads((run_copy / "config.json").read_text())
    for name in ("save_interval_minutes", "skip_nonfinite", "schedule_start"):
        del stored["config"]["train"][name]
    (run_copy / "config.json").write_text(json.dumps(stored))
    assert runs.read_run(run_copy)[0].train == TrainConfig(**stored["config"]["train"])
