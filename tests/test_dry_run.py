"""The plan of a run: its bytes against placed arrays, its FLOPs against the formula, its errors."""

import json
import subprocess
import sys

import jax
import pytest

import train
from gptjax.app import dry_run
from gptjax.backends import plan
from gptjax.backends.flops import train_flops
from gptjax.model import GPT
from gptjax.presets import PRESETS
from gptjax.training import init_state

from conftest import tiny_config
from several import ROOT, call, environment


@pytest.fixture(autouse=True)
def own_flags(monkeypatch):
    """XLA_FLAGS are restored: a dry run sets them."""
    monkeypatch.setenv("XLA_FLAGS", "")


def test_the_bytes_are_those_of_a_real_state():
    run_config = tiny_config()
    state = init_state(GPT(run_config.model), run_config, jax.random.key(0))
    sizes = [sum(x.nbytes for x in jax.tree.leaves(t)) for t in (state.params, state.opt_state)]
    assert plan.state_bytes(run_config, None) == (*sizes, sizes[0])


def test_what_is_frozen_has_no_gradient():
    run_config = tiny_config().replace(trainable="ln")
    found = plan.state_bytes(run_config, None)
    assert 0 < found.gradients < found.params


@pytest.mark.parametrize("preset", ["gpt2", pytest.param("gpt2-xl", marks=pytest.mark.slow)])
def test_xla_counts_as_many_operations_as_the_formula(preset):
    run_config = PRESETS[preset]
    assert plan.xla_flops(run_config) == pytest.approx(train_flops(run_config.model), rel=0.02)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--mesh", "fsdp=3,fsdp=2"], "--mesh"),
        (["--mesh", "data=100000"], "1024"),
        (["--mesh", "data=8", "--batch-size", "12"], "divisible"),
        (["--resume"], "--resume"),
        (["--out-dir", "runs/x"], "--out-dir"),
        (["--dry-run-tokens", "0"], "--dry-run-tokens"),
        (["--preset", "bigram"], "bigram"),
    ],
)
def test_what_cannot_be_planned_is_one_line(flags, names, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--dry-run", *flags]) == 2
    error = capsys.readouterr().err
    assert names in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


SMALL = "--n-layer 2 --n-head 2 --n-embd 16 --block-size 8 --batch-size 2".split()


def test_advice_about_a_plan_is_followed(capsys):
    """Each refused command works after the flag is added, left out or given a small value."""
    plan_of = ["--dry-run", "--preset", "gpt2", "--vocab-size", "300", "--tokenizer", "bpe", *SMALL]
    refused = {
        "add --dry-run": [*plan_of[1:], "--dry-run-tokens", "5"],
        "leave out --resume": [*plan_of, "--resume"],
        "devices at most": [*plan_of, "--mesh", "data=2000"],
        "must be at least 1": [*plan_of, "--dry-run-tokens", "0"],
        "name another": ["--dry-run", "--preset", "head", *SMALL],
    }
    for words, flags in refused.items():
        assert train.main(flags) == 2
        assert words in capsys.readouterr().err
    assert train.main([*plan_of, "--dry-run-tokens", "5"]) == 0
    printed = capsys.readouterr().out
    assert "a vocabulary of 300 ids" in printed
    assert "\n5 tokens, at" in printed


def test_a_batch_that_does_not_divide_grows_and_the_flags_are_named():
    said: list[str] = []
    planned = dry_run.planned({"preset": "gpt2-xl"}, "fsdp=64", said.append)
    (line,) = said
    assert line.endswith("planned with --batch-size 64 --gradient-accumulation-steps 8")
    given = {"preset": "gpt2-xl", "batch_size": 64, "gradient_accumulation_steps": 8}
    assert dry_run.planned(given, "fsdp=64", said.append) == planned
    assert len(said) == 1


@pytest.mark.slow
def test_the_bytes_equal_those_of_a_run_on_eight_devices(tmp_path):
    path = tmp_path / "found.json"
    worker = [sys.executable, "tests/plan_worker.py", str(path)]
    subprocess.run(worker, cwd=ROOT, env=environment(8), check=True)
    found = json.loads(path.read_text())
    assert len(found["state"]) == 12
    for name, mesh, real, planned in found["state"]:
        assert real == planned, (name, mesh)
    real, planned = found["remat"]
    assert planned == pytest.approx(real, rel=0.1), "mostly weights gathered for every block"


@pytest.mark.slow
def test_the_page_has_its_lines_on_a_simulated_mesh():
    done = call("train.py", "--dry-run", "--preset", "shakespeare", "--mesh", "data=2,fsdp=2")
    assert done.returncode == 0, done.stderr
    for line in (
        "parameters: 10,",
        "4 devices",
        "gathered",
        "CPU estimate, float32",
        "all-reduce",
        "H100",
    ):
        assert line in done.stdout
