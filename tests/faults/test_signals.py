"""Signals from people, terminals and schedulers: each saves the run, none interrupts a save."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import train
from gptjax.app import train as story
from gptjax.app.signals import StopRequest
from gptjax.config import TrainConfig

from outcomes import assert_same_state, go
from processes import ENVIRONMENT, ROOT, saved_steps, train_flags, wait_for


@pytest.fixture(autouse=True)
def heeded():
    """Restores SIGHUP's default, in case the tests themselves were started by `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGUSR1, 138)])
def test_a_terminal_that_closes_and_a_scheduler_save_the_run(
    tmp_path, text_file, finished_run, monkeypatch, number, status
):
    """SIGHUP once killed a run at step 7,790, before its first evaluation."""
    path = tmp_path / "run"

    class Stopped(story.Report):
        def stepped(self, line):
            super().stepped(line)
            if line["step"] == 3:
                for _ in range(3):  # a terminal sends more than one signal
                    os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(story, "Report", Stopped)
        patch.setattr("gptjax.app.loop.DISPATCH_SECONDS", 0.0)
        assert go(path, text_file, "--eval-interval", "6") == status
    assert saved_steps(path) == [4]
    assert train.main(["--out-dir", str(path), "--resume", "--eval-interval", "3"]) == 0
    assert_same_state(path, finished_run)


def test_what_was_ignored_stays_ignored():
    """`nohup` starts a program with SIGHUP ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is None
        assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_handlers_come_back():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    with StopRequest():
        pass
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_ctrl_c_of_the_same_moment_is_the_same_request():
    """`timeout -s INT` signals its child, and then the child's process group."""
    script = """
import os, signal, threading, time
from gptjax.app.signals import StopRequest
with StopRequest() as stop:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    print(int(stop.signal), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=50
    )
    assert (done.stdout, done.returncode) == (f"{int(signal.SIGINT)}\n", 0)


def test_after_a_scheduler_has_warned_one_sigterm_does_not_cut_the_save_off():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGUSR1
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_saves_by_the_clock_unless_told_otherwise():
    assert TrainConfig().save_interval_minutes == 10


LONG = ["--max-iters", 10**6, "--eval-interval", 10**6]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nohup", "timeout"])
def test_real_programs_that_send_signals(tmp_path, text_file, how):
    path = tmp_path / "run"
    flags = train_flags(path, text_file, *LONG, "--save-interval-minutes", 0.002)
    before = {"nohup": ["nohup"], "timeout": ["timeout", "-s", "INT", "12"]}[how]
    process = subprocess.Popen(
        [*before, sys.executable, str(ROOT / "train.py"), *map(str, flags)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, lambda: len(saved_steps(path)) > 1)
    if how == "nohup":
        process.send_signal(signal.SIGHUP)
        there = saved_steps(path)[-1]
        wait_for(process, lambda: saved_steps(path)[-1] > there)
        process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert "saved; continue with" in out
    assert process.returncode == {"nohup": 143, "timeout": 124}[how]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
def test_a_terminal_that_closes(tmp_path, text_file):
    """A pseudo-terminal whose other end is closed: the run gets SIGHUP, and writing fails."""
    path = tmp_path / "run"
    ours, theirs = os.openpty()
    flags = map(str, train_flags(path, text_file, *LONG))
    process = subprocess.Popen(
        ["setsid", "-c", sys.executable, str(ROOT / "train.py"), *flags],
        env=ENVIRONMENT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    deadline = time.monotonic() + 60
    while b"tokens/s" not in said and time.monotonic() < deadline:
        said += os.read(ours, 1000)
    os.close(ours)
    assert process.wait(timeout=60) == 129
    assert saved_steps(path)
