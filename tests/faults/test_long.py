"""Over 20,000 steps nothing grows: memory, open files, threads, the time of a step."""

import os
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from processes import metrics, saved_steps, start, train_flags, wait_for

STEPS = 20_000


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_twenty_thousand_steps(tmp_path, text_file):
    """Sixty evaluations, as many saves, and a save by time now and then."""
    path = tmp_path / "run"
    flags = ["--max-iters", STEPS, "--eval-interval", 333, "--log-interval", 100]
    process = start(
        "train.py",
        *train_flags(path, text_file, *flags, "--save-interval-minutes", 0.01),
        stdout=subprocess.DEVNULL,
    )
    wait_for(process, lambda: saved_steps(path))
    seen = []
    while process.poll() is None:
        pid = process.pid
        try:
            files, threads = (len(os.listdir(f"/proc/{pid}/{x}")) for x in ("fd", "task"))
            seen.append((resident_kib(pid), files, threads))
        except OSError:
            break
        time.sleep(0.05)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    seen = [x for x in seen if x[0] > 0]
    third = len(seen) // 3
    early, late = seen[third : 2 * third], seen[2 * third : -1]
    memory = [max(x[0] for x in part) for part in (early, late)]
    # 256 KiB a save would be 10 MiB here.
    assert memory[1] - memory[0] < 8 * 1024, f"resident KiB: {memory}"
    # The fewest at any moment: a save under way opens some, and what leaks stays.
    for i, name in (1, "files"), (2, "threads"):
        fewest = [min(x[i] for x in part) for part in (early, late)]
        assert fewest[1] <= fewest[0] + 2, (name, fewest)

    rates = [x["tokens_per_second"] for x in metrics(path) if "tokens_per_second" in x]
    third = len(rates) // 3
    slow_down = statistics.median(rates[third : 2 * third]) / statistics.median(rates[2 * third :])
    assert slow_down < 1.3, "other programs beside this one may do this too"
    lines = metrics(path)
    assert [x["step"] for x in lines] == sorted({x["step"] for x in lines})
    assert lines[-1]["step"] == STEPS
