"""The estimate of a run's duration, and runs with a given duration."""

import threading

import pytest

import train
from gptjax.app import budget
from gptjax.app import train as story
from gptjax.app.budget import Speed, steps_within
from gptjax.backends.feeding import HostTokens
from gptjax.store import runs

from outcomes import assert_same_state, final_state, go

BUDGET = [
    *"--n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4 --dropout 0.1".split(),
    *"--optimizer adamw --eval-interval 1000 --log-interval 100 --learning-rate 4e-3".split(),
]


def test_steps_within_a_time_by_hand():
    """100 s less 10 for the last evaluation: updates of 1 s, each with a tenth of an evaluation."""
    assert steps_within(100, Speed(start=5, update=1, evaluation=10), eval_interval=10) == 45
    assert steps_within(-100, Speed(5, 1, 10), 10) == 1
    assert steps_within(1e30, Speed(5, 1, 10), 10) == 2**31 - 1


def test_a_run_of_so_many_minutes_is_any_run_of_as_many_steps(tmp_path, text_file, monkeypatch):
    monkeypatch.setattr(budget, "measure", lambda *_: Speed(start=0.0, update=0.5, evaluation=1.0))
    path, same = tmp_path / "run", tmp_path / "same"
    flags = [*BUDGET, "--data", str(text_file), "--out-dir"]
    assert train.main([*flags, str(path), "--budget-minutes", "0.1"]) == 0
    steps = runs.read_run(path)[0].train.max_iters
    assert 1 < steps <= 12
    assert int(final_state(path).step) == steps
    monkeypatch.undo()
    assert train.main([*flags, str(same), "--max-iters", str(steps)]) == 0
    assert_same_state(path, same)


def test_the_speed_is_measured_and_leaves_no_trace(tmp_path, text_file, monkeypatch, capsys):
    monkeypatch.setattr(budget, "TRIAL_SECONDS", 0.05)
    path = tmp_path / "run"
    flags = [*BUDGET, "--data", str(text_file), "--out-dir", str(path)]
    assert train.main([*flags, "--budget-minutes", "1e-3"]) == 0
    out = capsys.readouterr().out
    assert "--budget-minutes 0.001: measuring" in out
    assert "with time left for evaluations and startup" in out
    assert sorted(p.name for p in path.iterdir())[0] == "checkpoints"
    assert runs.read_run(path)[0].train.max_iters == 1, "the start alone takes longer"


def test_a_failure_while_measuring_ends_the_reading_thread(
    tmp_path, text_file, monkeypatch, capsys
):
    def fails(self, starts, T):
        raise OSError(5, "Input/output error")

    before = set(threading.enumerate())
    monkeypatch.setattr(HostTokens, "windows", fails)
    flags = [*BUDGET, "--data", text_file, "--out-dir", tmp_path / "run", "--data-on-device", "no"]
    assert train.main([str(x) for x in [*flags, "--budget-minutes", "1"]]) == 1
    assert "Input/output error" in capsys.readouterr().err
    after = set(threading.enumerate()) - before
    assert not [x for x in after if x.name.startswith("reading")]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "1e39"])
def test_no_time_at_all_is_refused(tmp_path, text_file, refused, minutes):
    path = tmp_path / "run"
    flags = ["--out-dir", path, "--data", text_file, f"--budget-minutes={minutes}"]
    assert f"--budget-minutes ({float(minutes)})" in refused(train, *flags)
    assert not path.exists()


@pytest.mark.parametrize("more", ["--max-iters 5", "--resume", "--eval-only"])
def test_what_chooses_the_steps_already_excludes_it(run_copy, refused, more):
    flags = ["--out-dir", run_copy, "--budget-minutes", 1, *more.split()]
    assert "leave out one of them" in refused(train, *flags)


def test_a_run_says_within_ten_steps_how_long_it_takes(tmp_path, text_file, capsys, monkeypatch):
    said_at = []

    class Spy(story.Report):
        def _tell_time(self, line):
            said_at.append(line["step"])
            super()._tell_time(line)

    monkeypatch.setattr(story, "Report", Spy)
    path = tmp_path / "run"
    flags = ["--max-iters", "40", "--eval-interval", "40", "--log-interval", "40"]
    assert go(path, text_file, *flags) == 0
    assert len(said_at) == 1
    assert said_at[0] <= 10
    out = capsys.readouterr().out
    assert f"the remaining {40 - said_at[0]} steps take" in out
    assert "--budget-minutes M" in out
    assert train.main(["--out-dir", str(path), "--resume", "--max-iters", "80"]) == 0
    out = capsys.readouterr().out
    assert "steps take" in out
    assert "--budget-minutes" not in out, "it is for new runs"
