"""A resumed run continues bit for bit, and may change some settings."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

import train
from gptjax.app import train as story
from gptjax.backends import execution
from gptjax.backends.execution import suited
from gptjax.store import runs
from gptjax.version import __version__

from conftest import damage_newest
from outcomes import TIMES, assert_same_state, final_state, go, metrics


class StoppedAtFour(story.Report):
    """A run that a signal stops after step 4, between two evaluations."""

    def stepped(self, line):
        super().stepped(line)
        if line["step"] == 3:  # step 4 is already in flight
            os.kill(os.getpid(), signal.SIGTERM)


def stopped_at_four(main, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "Report", StoppedAtFour)
        patch.setattr("gptjax.app.loop.DISPATCH_SECONDS", 0.0)
        assert main(*arguments) == 143


def stop_and_resume(path, text_file, *flags):
    stopped_at_four(go, path, text_file, "--eval-interval", "6", *flags)
    assert int(final_state(path).step) == 4
    assert train.main(["--out-dir", str(path), "--resume", "--eval-interval", "3"]) == 0


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tmp_path, text_file, finished_run):
    stop_and_resume(tmp_path / "run", text_file)
    assert_same_state(tmp_path / "run", finished_run)
    stopped = [x for x in metrics(tmp_path / "run", *TIMES, "val_loss") if x["step"] != 3]
    whole = [x for x in metrics(finished_run, *TIMES, "val_loss") if x["step"] != 3]
    assert stopped == whole


def test_a_run_with_muon_goes_on_bit_for_bit(tmp_path, text_file):
    assert go(tmp_path / "whole", text_file, "--optimizer", "muon") == 0
    stop_and_resume(tmp_path / "parts", text_file, "--optimizer", "muon")
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    muon = final_state(tmp_path / "whole").opt_state[1].inner_states["muon"]
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(muon))


@pytest.mark.parametrize(
    "how", ["missing manifest", "gone", pytest.param("truncated", marks=pytest.mark.slow)]
)
def test_resuming_uses_the_newest_whole_checkpoint(run_copy, finished_run, how, capsys):
    damage_newest(run_copy, how)
    assert train.main(["--out-dir", str(run_copy), "--resume"]) == 0
    captured = capsys.readouterr()
    assert "resuming from step 3" in captured.out
    assert ("checkpoints/6" in captured.err) == (how != "gone")
    assert_same_state(run_copy, finished_run)
    assert metrics(run_copy, *TIMES) == metrics(finished_run, *TIMES)


def test_resuming_before_the_first_checkpoint_starts_from_step_0(run_copy, finished_run, capsys):
    shutil.rmtree(run_copy / runs.CHECKPOINTS)
    assert train.main(["--out-dir", str(run_copy), "--resume"]) == 0
    assert "starting from step 0" in capsys.readouterr().out
    assert_same_state(run_copy, finished_run)


def test_resuming_a_finished_run_says_so(run_copy, capsys):
    before = (run_copy / "metrics.jsonl").read_bytes()
    assert train.main(["--out-dir", str(run_copy), "--resume"]) == 0
    assert "this run is finished: 6 of 6 steps" in capsys.readouterr().out
    assert (run_copy / "metrics.jsonl").read_bytes() == before


def test_a_larger_max_iters_extends_a_run(run_copy, capsys):
    assert train.main(["--out-dir", str(run_copy), "--resume", "--max-iters", "9"]) == 0
    assert "extending the run and its schedule from 6 to 9" in capsys.readouterr().out
    assert [x["step"] for x in metrics(run_copy)] == [1, 2, 3, 4, 6, 8, 9]
    assert runs.read_run(run_copy)[0].train.max_iters == 9
    assert sorted(p.name for p in (run_copy / "checkpoints").iterdir())[-1] == "9"


HOW = (
    "--learning-rate 1e-3 --grad-clip 0.5 --warmup-iters 1 --schedule cosine --weight-decay 0.3 "
    "--min-lr 2e-4 --beta1 0.8 --beta2 0.95 --max-iters 12"
).split()


def test_a_resume_may_change_how_training_goes_on_and_is_exact_from_there(
    tmp_path, text_file, capsys
):
    """A run that was changed at step 3 and killed at step 4 equals one that was only changed."""
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        stopped = ["--max-minutes", "1e-9", "--eval-interval", "1"]
        assert go(path, text_file, "--max-iters", "10", *stopped) == 0
    goes_on = ["--resume", "--max-minutes", "0", "--eval-interval", "6", *HOW]
    capsys.readouterr()
    assert train.main(["--out-dir", str(one), *goes_on]) == 0
    out = capsys.readouterr().out
    assert "from step 1 on: max_iters 12 instead of 10, learning_rate 0.001 instead of" in out
    assert "the learning rate was" in out
    stopped_at_four(train.main, ["--out-dir", str(two), *goes_on])
    assert train.main(["--out-dir", str(two), "--resume"]) == 0
    assert_same_state(one, two)
    assert int(final_state(one).step) == 12
    for path in (one, two):
        train_config = runs.read_run(path)[0].train
        assert (train_config.learning_rate, train_config.schedule, train_config.beta1) == (
            1e-3,
            "cosine",
            0.8,
        )
        (change,) = runs.read_changes(path)
        assert change["step"] == 1
        assert change["learning_rate"] == [4e-3, 1e-3]
        assert len(change) == 1 + len(HOW) // 2


@pytest.mark.slow
def test_a_change_changes_the_run(run_copy, finished_run, tmp_path):
    other = shutil.copytree(finished_run, tmp_path / "other")
    for path, rate in ((run_copy, "4e-3"), (other, "1e-3")):
        flags = ["--resume", "--max-iters", "8", "--learning-rate", rate]
        assert train.main(["--out-dir", str(path), *flags]) == 0
    a, b = (final_state(path).params["wte"]["embedding"] for path in (run_copy, other))
    assert np.abs(np.asarray(a) - np.asarray(b)).max() > 0
    assert [x["step"] for x in runs.read_changes(other)] == [6]
    assert train.main(["--out-dir", str(other), "--resume", "--max-iters", "9"]) == 0
    assert [sorted(x) for x in runs.read_changes(other)] == [
        ["learning_rate", "max_iters", "step"],
        ["max_iters", "step"],
    ]


@pytest.mark.parametrize(
    "flags",
    [
        *("--n-embd 32", "--batch-size 8", "--block-size 8", "--optimizer muon", "--seed 3"),
        *("--dropout 0", "--decay all", "--dtype bfloat16", "--tie-embeddings", "--preset bigram"),
        "--gradient-accumulation-steps 2",
    ],
)
def test_what_would_make_it_another_run_is_refused(run_copy, refused, flags):
    before = (run_copy / "config.json").read_bytes()
    error = refused(train, "--out-dir", run_copy, "--resume", "--max-iters", 9, *flags.split())
    assert "contradicts the run" in error
    assert (run_copy / "config.json").read_bytes() == before


def test_extending_a_run_says_what_it_does_to_the_rate_and_offers_a_warm_up(run_copy, capsys):
    """The learning rate used to rise a thousandfold within a few steps without a warning."""
    flags = ["--out-dir", str(run_copy), "--resume", "--max-iters", "30", "--log-interval", "1"]
    again = shutil.copytree(run_copy, run_copy.with_name("again"))
    assert train.main(flags) == 0
    out = capsys.readouterr().out
    assert "at step 6 and is" in out
    assert "--rewarm would restart the schedule" in out
    flags[1] = str(again)
    assert train.main([*flags, "--rewarm"]) == 0
    out = capsys.readouterr().out
    assert "the first of a warm-up to 0.004" in out
    assert runs.read_run(again)[0].train.schedule_start == 6
    rates = [x["learning_rate"] for x in metrics(again) if x["step"] > 6]
    # 24 steps are left: two of warm-up; in the others, the rate falls.
    assert np.argmax(rates) == 2
    np.testing.assert_allclose(rates[:3], [4e-3 / 3, 8e-3 / 3, 4e-3], rtol=1e-5)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert [x["schedule_start"] for x in runs.read_changes(again)] == [[0, 6]]


def test_to_warm_up_again_is_for_a_resume(tmp_path, text_file, refused):
    error = refused(train, "--out-dir", tmp_path / "run", "--data", text_file, "--rewarm")
    assert "add --resume" in error


@pytest.mark.slow
def test_the_least_rate_follows_a_lower_rate(tmp_path, text_file):
    """`--learning-rate 1e-5` used to be refused because of a default --min-lr."""
    path = tmp_path / "run"
    assert go(path, text_file, "--learning-rate", "4e-3", "--min-lr", "1e-3") == 0
    flags = ["--out-dir", str(path), "--resume", "--max-iters", "8", "--learning-rate", "4e-5"]
    assert train.main(flags) == 0
    train_config = runs.read_run(path)[0].train
    assert train_config.learning_rate == 4e-5
    assert train_config.min_lr == pytest.approx(1e-5)


def test_a_record_of_changes_that_is_damaged_is_no_reason_to_stop(run_copy):
    path = run_copy / "config.json"
    for changes in (3, [1, {"step": 2}], {}):
        stored = json.loads(path.read_text()) | {"changes": changes}
        path.write_text(json.dumps(stored))
        assert all(isinstance(x, dict) for x in runs.read_changes(run_copy))
    assert runs.read_changes(run_copy) == []


def test_a_run_of_a_version_with_other_random_numbers_says_that_it_differs(run_copy, capsys):
    path = run_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0.1.0"}))
    flags = ["--out-dir", str(run_copy), "--resume", "--max-iters"]
    for max_iters, is_said in (("8", True), ("10", False)):
        assert train.main([*flags, max_iters]) == 0
        line = "gptjax 0.1.0, which wrote this run, drew other random numbers: from step 6 on"
        assert (line in capsys.readouterr().out) == is_said
    changes = runs.read_changes(run_copy)
    assert changes[0] == {"step": 6, "version": ["0.1.0", __version__]}
    assert all("version" not in change for change in changes[1:])


@pytest.mark.slow
def test_without_dropout_an_older_run_goes_on_bit_for_bit(tmp_path, text_file, capsys):
    path = tmp_path / "run"
    assert go(path, text_file, "--dropout", "0") == 0
    stored = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(stored | {"version": "0.1.0"}))
    assert train.main(["--out-dir", str(path), "--resume", "--max-iters", "8"]) == 0
    assert "random numbers" not in capsys.readouterr().out


def test_remat_is_how_a_run_is_computed_and_a_resume_may_change_it(
    tmp_path, text_file, finished_run, monkeypatch
):
    used = []

    def spy(model, run_config, platform):
        found = suited(model, run_config, platform)
        used.append(found.execution.remat)
        return found

    monkeypatch.setattr(story, "suited", spy)
    run = tmp_path / "run"
    assert go(run, text_file, "--remat") == 0
    ours, plain = ([x["train_loss"] for x in metrics(p)] for p in (run, finished_run))
    assert len(ours) == 5
    np.testing.assert_allclose(ours, plain, rtol=1e-5)
    assert train.main(["--out-dir", str(run), "--resume", "--max-iters", "9", "--no-remat"]) == 0
    assert used == [True, False]


@pytest.mark.slow
def test_micro_batches_are_chosen_once_and_belong_to_the_run(
    tmp_path, text_file, monkeypatch, refused
):
    run = tmp_path / "run"
    monkeypatch.setattr(execution, "CACHE", 2 * 16 * 4 * 16 * 4)  # two sequences of TINY
    assert go(run, text_file) == 0
    monkeypatch.undo()
    assert runs.read_run(run)[0].train.micro_batch_size == 2
    flags = ["--out-dir", str(run), "--resume", "--max-iters", "7"]
    assert "has 2" in refused(train, *flags, "--micro-batch-size", "0")
    assert train.main(flags) == 0
    assert runs.read_run(run)[0].train.micro_batch_size == 2


def test_resume_without_out_dir_takes_the_newest_run(tmp_path, finished_run, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run, tmp_path / "runs" / "mine")
    assert train.main(["--resume"]) == 0
    assert "run: runs/mine" in capsys.readouterr().out


def test_the_same_text_at_another_path_resumes(run_copy, tmp_path, text_file):
    moved = shutil.move(text_file, tmp_path / "moved.txt")
    assert (
        train.main(
            ["--out-dir", str(run_copy), "--resume", "--data", str(moved), "--max-iters", "7"]
        )
        == 0
    )


def test_max_minutes_evaluates_saves_and_can_go_on(tmp_path, text_file, finished_run, capsys):
    assert go(tmp_path / "run", text_file, "--max-minutes", "1e-9") == 0
    assert "the time limit (--max-minutes) is reached" in capsys.readouterr().out
    assert metrics(tmp_path / "run")[-1]["val_loss"] > 0
    assert train.main(["--out-dir", str(tmp_path / "run"), "--resume", "--max-minutes", "0"]) == 0
    assert_same_state(tmp_path / "run", finished_run)
