"""A killed run continues as if never killed, and only one process at a time writes to a run."""

import os
import random
import shutil
import signal
import subprocess
import sys

import pytest

import sample
import train
from gptjax.store import runs
from gptjax.store.lock import locked

from conftest import TEXT
from outcomes import TIMES, assert_same_state, metrics
from processes import ENVIRONMENT, saved_steps, start, train_flags, wait_for

STEPS = 800
# Saves by time alone, about ten per second, so that most kills happen during a save.
KILLABLE = ["--max-iters", STEPS, "--eval-interval", STEPS, "--log-interval", 7]
OFTEN = ["--save-interval-minutes", 0.002]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The undisturbed run, which the killed runs must equal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "text.txt").write_text(TEXT)
    assert train.main(train_flags(folder / "run", folder / "text.txt", *KILLABLE)) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_killed_run_is_the_undisturbed_run_and_is_refused_to_a_second_process(
    tmp_path, text_file, undisturbed, refused
):
    path = tmp_path / "run"
    process = start("train.py", *train_flags(path, text_file, *KILLABLE, *OFTEN))
    wait_for(process, lambda: len(saved_steps(path)) > 1)

    # While the process lives, only it may write to its folder; reading is allowed. The process is
    # stopped meanwhile: it saves so often that it would prune the checkpoint that is being read.
    os.kill(process.pid, signal.SIGSTOP)
    for flags in (["--resume"], ["--overwrite", "--data", text_file]):
        assert "another process is training in" in refused(train, "--out-dir", path, *flags)
    assert sample.main(["--out-dir", str(path), "--max-new-tokens", "3", "--step", "latest"]) == 0

    process.kill()
    process.communicate()
    before = saved_steps(path)
    assert before
    assert before[-1] < STEPS, "it was killed too late"

    # The second time, two Ctrl-C end the process at once, without saving, and nothing is lost.
    process = start("train.py", "--out-dir", path, "--resume", *OFTEN)
    wait_for(process, lambda: saved_steps(path)[-1] > before[-1])
    os.kill(process.pid, signal.SIGSTOP)
    there = saved_steps(path)[-1]
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGCONT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGINT, 130)
    assert saved_steps(path)[-1] >= there

    assert train.main(["--out-dir", str(path), "--resume"]) == 0
    assert_same_state(path, undisturbed)
    assert metrics(path, *TIMES) == metrics(undisturbed, *TIMES)
    names = sorted(p.name for p in path.iterdir())
    assert names == sorted({runs.CHECKPOINTS, *runs.WRITTEN} - {runs.PAGE})
    assert all(p.name.isdigit() for p in (path / runs.CHECKPOINTS).iterdir())


def test_the_lock_goes_with_its_process_and_keeps_out_no_other_folder(tmp_path):
    told = []
    with locked(tmp_path, told.append):
        (tmp_path / "other").mkdir()
        with locked(tmp_path / "other", told.append):
            pass
    with locked(tmp_path, told.append):
        pass
    assert told == []


def test_where_there_are_no_locks_it_says_so_and_goes_on(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("gptjax.store.lock.fcntl.flock", flock)
    told = []
    with locked(tmp_path, told.append):
        assert "cannot be locked (Operation not supported)" in told[0]


@pytest.mark.parametrize("written", [[], ["tokenizer.json"], [".tokenizer.json-x1y2z3_4"]])
def test_killed_before_config_json_is_written_the_same_command_works(
    run_copy, tmp_path, text_file, written
):
    """Such a folder used to be refused: not empty, and not a run."""
    path = tmp_path / "begun"
    path.mkdir()
    for name in written:
        shutil.copy(run_copy / "tokenizer.json", path / name)
    assert train.main(train_flags(path, text_file, "--max-iters", 1)) == 0
    assert not list(path.glob(".*"))


def test_what_is_not_the_beginning_of_a_run_is_not_written_over(tmp_path, text_file, refused):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    error = refused(train, *train_flags(tmp_path / "else", text_file))
    assert "a new run would overwrite its tokenizer.json" in error


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, text_file, undisturbed):
    """benchmarks/torture.py repeats this sixty times."""
    path, moments = tmp_path / "run", random.Random(7)
    first = train_flags(path, text_file, *KILLABLE, *OFTEN)
    for _ in range(6):
        resume = ["--out-dir", path, "--resume", *OFTEN]
        process = start("train.py", *(resume if runs.is_run(path) else first))
        try:
            process.wait(moments.uniform(0.5, 9))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    assert train.main(["--out-dir", str(path), "--resume"]) == 0
    assert_same_state(path, undisturbed)
    assert metrics(path, *TIMES) == metrics(undisturbed, *TIMES)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once(second):
    """The first signal requests a stop, which may take minutes; the second kills the process."""
    script = f"""
import os, signal, time
from gptjax.app.signals import StopRequest
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    print(int(stop.signal), flush=True)
    os.kill(os.getpid(), {int(second)})
    time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=50
    )
    assert (done.stdout, done.returncode) == (f"{int(signal.SIGINT)}\n", -second)
