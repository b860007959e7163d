"""Over 20,000 steps, nothing grows: memory, open files, threads, or the time per step."""

import ctypes
import os
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from outcomes import metrics
from processes import ENVIRONMENT, ROOT, saved_steps, start, train_flags, wait_for

STEPS = 20_000
# Orbax asks tensorstore for metrics at each save, and tensorstore does not free all of their memory
# (measured: 58 KiB with 0.1.86; docs/reliability.md).
SAVE_KIB = 64

needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs Linux with glibc 2.33"
)


def start_counted(path: Path, text_file: Path, used: Path, *flags: object):
    """Trains a run, and writes its memory in use to `used`."""
    script = ["train.py", *train_flags(path, text_file, "--log-interval", 100, *flags)]
    return start(
        *("tests/faults/in_use.py", used, path / "metrics.jsonl", *script),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env=ENVIRONMENT | {"PYTHONMALLOC": "malloc"},  # its own allocator is not counted
    )


def thirds(values: list) -> tuple[list, list]:
    """Compares the second with the last: the first includes compilation."""
    n = len(values) // 3
    return values[n : 2 * n], values[2 * n : 3 * n]


def kib_in_use(used: Path, steps: int) -> list[float]:
    """The medians over the second and the last third of the steps.

    The first third includes the compilation of the updates, and the end that of the last
    evaluation. Both are left out, so that they do not matter, however fast a machine trains.
    """
    samples = [[int(x) for x in line.split()] for line in used.read_text().splitlines()]
    bounds = [(steps / 3, steps * 2 / 3), (steps * 2 / 3, steps * 0.95)]
    return [
        statistics.median(size for step, size in samples if start < step < end) / 1024
        for start, end in bounds
    ]


@pytest.mark.slow
@needs_glibc
def test_twenty_thousand_steps(tmp_path, text_file):
    """Sixty evaluations, sixty saves, and an occasional save by time."""
    path, used = tmp_path / "run", tmp_path / "used"
    flags = ["--max-iters", STEPS, "--eval-interval", 333, "--save-interval-minutes", 0.01]
    process = start_counted(path, text_file, used, *flags)
    wait_for(process, lambda: saved_steps(path))
    seen, saves = [], []
    while process.poll() is None:
        try:
            seen.append([len(os.listdir(f"/proc/{process.pid}/{x}")) for x in ("fd", "task")])
        except OSError:
            break
        saves.append(set(saved_steps(path)))
        time.sleep(0.05)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")

    # A save in progress takes memory and files, so compare the median and the minimum.
    kib = kib_in_use(used, STEPS)
    new = len(set().union(*thirds(saves)[1]))
    assert kib[1] - kib[0] < SAVE_KIB * new + 2048, f"{kib} KiB in use, {new} saves"
    for i, name in (0, "files"), (1, "threads"):
        fewest = [min(x[i] for x in part) for part in thirds(seen)]
        assert fewest[1] <= fewest[0] + 2, (name, fewest)

    lines = metrics(path)
    assert [x["step"] for x in lines] == sorted({x["step"] for x in lines})
    assert lines[-1]["step"] == STEPS
    rates = thirds([x["tokens_per_second"] for x in lines if "tokens_per_second" in x])
    slow_down = statistics.median(rates[0]) / statistics.median(rates[1])
    assert slow_down < 1.3, "other programs beside this one may do this too"


@pytest.mark.slow
@needs_glibc
def test_steps_alone_take_no_memory(tmp_path, text_file):
    """Memory is constant between saves. A small leak per step would hardly show above."""
    used = tmp_path / "used"
    flags = ["--max-iters", STEPS // 2, "--eval-interval", STEPS]
    process = start_counted(tmp_path / "run", text_file, used, *flags)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    kib = kib_in_use(used, STEPS // 2)
    assert kib[1] - kib[0] < 512, f"{kib} KiB in use"
