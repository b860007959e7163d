"""The peak memory of a command, process by process, from Linux's /proc."""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gptjax.errors import RunError

PROC = Path("/proc")
ROOT = Path(__file__).resolve().parent.parent


class Watched(NamedTuple):
    """A command that has ended.

    Attributes:
        said: its standard output and errors.
        resident: for each of its processes, itself first, the peak of its resident memory in MB.
        anonymous: the same without the pages of mapped files.
    """

    seconds: float
    said: str
    resident: list[float]
    anonymous: list[float]


def can_watch() -> bool:
    """Whether this system reports the memory of a process."""
    return (PROC / "self" / "status").is_file()


def watch(command: list[str], every: float = 0.02) -> Watched:
    """Runs a command in the checkout, and watches it and its descendants at intervals.

    The kernel records the peak of resident memory. The peak of anonymous memory is the largest
    value that was read.

    Raises:
        RunError: its exit status is not 0; the message has its last line.
    """
    resident: dict[int, float] = {}
    anonymous: dict[int, float] = {}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            while process.poll() is None:
                for pid in _family(process.pid):
                    found = memory(pid)
                    resident[pid] = max(resident.get(pid, 0.0), found.get("VmHWM", 0.0))
                    anonymous[pid] = max(anonymous.get(pid, 0.0), found.get("RssAnon", 0.0))
                time.sleep(every)
        finally:
            process.kill()
            process.wait()
        seconds = time.monotonic() - began
        log.seek(0)
        said = log.read()
    if process.returncode:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"{' '.join(command)} failed (status {process.returncode}): {last}")
    return Watched(seconds, said, list(resident.values()), list(anonymous.values()))


def memory(pid: int | str = "self") -> dict[str, float]:
    """A process's memory in MB, by the kernel's names; empty if the process has ended."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.split(":", 1) for line in lines if line.endswith(" kB")]
    return {name: int(value.split()[0]) * 1024 / 1e6 for name, value in pairs}


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop(0))
        for children in (PROC / str(found[-1]) / "task").glob("*/children"):
            try:
                todo += map(int, children.read_text().split())
            except OSError:  # the thread has ended
                continue
    return found
