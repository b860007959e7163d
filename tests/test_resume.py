"""A run goes on from where it was: bit for bit, and with what a resume may change."""

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

from conftest import damage_newest
from outcomes import TIMES, assert_same_state, final_state, go, metrics


class StoppedAtFour(story.Report):
    """A run that a signal stops after step 4, between two evaluations."""

    def stepped(self, line):
        super().stepped(line)
        if line["step"] == 3:  # step 4 is in flight by then
            os.kill(os.getpid(), signal.SIGTERM)


def stop_and_resume(path, text_file, *flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "Report", StoppedAtFour)
        patch.setattr("gptjax.app.loop.DISPATCH_SECONDS", 0.0)
        assert go(path, text_file, "--eval-interval", "6", *flags) == 143
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


def test_remat_is_how_a_run_is_computed_and_a_resume_may_change_it(
    tmp_path, text_file, finished_run, monkeypatch
):
    used = []

    def spy(model, config, platform):
        found = suited(model, config, platform)
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
    assert "--max-minutes is over" in capsys.readouterr().out
    assert metrics(tmp_path / "run")[-1]["val_loss"] > 0
    assert train.main(["--out-dir", str(tmp_path / "run"), "--resume", "--max-minutes", "0"]) == 0
    assert_same_state(tmp_path / "run", finished_run)
