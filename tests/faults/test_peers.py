"""One of several processes is killed, frozen or asked to stop, at each kind of moment."""

import signal
import time

import pytest

from gptjax.app import verify

from conftest import TEXT, tiny, with_flags
from processes import ROOT, saved_steps, wait_for
from several import ended, start_together

MOMENTS = ("compile", "step", "evaluation", "save")
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM)
FLAGS = with_flags(
    tiny("--batch-size", 8, "--n-head", 4),
    *("--max-iters", 100_000, "--eval-interval", 40, "--eval-iters", 1, "--log-interval", 1),
    *("--heartbeat-seconds", 6),
)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_others_end_too_and_nothing_saved_is_lost(tmp_path, moment, number, victim):
    (tmp_path / "text.txt").write_text(TEXT)
    path, marker = tmp_path / "run", tmp_path / "now"
    peer = str(ROOT / "tests" / "faults" / "peer.py")
    programs = [[peer, moment, str(marker if i == victim else tmp_path / "x")] for i in range(2)]
    flags = [*FLAGS, "--data", tmp_path / "text.txt", "--out-dir", path]
    processes = start_together(*flags, devices=2, programs=programs)
    try:
        wait_for(processes[victim], marker.exists)
        before = saved_steps(path)
        assert bool(before) == (moment != "compile")
        processes[victim].send_signal(number)
        began = time.monotonic()
        other = processes[1 - victim]
        status, _, err = ended([other], seconds=60)[0]
        assert time.monotonic() - began < 30
        if number == signal.SIGTERM:
            assert (status, err) == (143, "")
            assert ended(processes[victim : victim + 1])[0][0] == 143
        else:
            # JAX logs the lost connection in its own lines before ours.
            assert (status, err.count("train.py: error: ")) == (1, 1), err
            assert err.splitlines()[-1].startswith("train.py: error: ")
            assert "Traceback" not in err
            assert "stack trace" not in err
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    if before:
        assert verify.main([str(path)]) == 0
        assert max(saved_steps(path)) >= max(before)
