"""Runs several processes, each with its own simulated devices."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import train

ROOT = Path(train.__file__).parent


def environment(devices: int) -> dict[str, str]:
    """That of a process with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_together(
    *flags: object, devices: int = 4, programs: list[list[str]] | None = None, count: int = 2
) -> list[subprocess.Popen[str]]:
    """Starts `train.py` as several processes that train one model, and captures their output.

    Args:
        devices: number of devices of each process.
        programs: the program that each process runs instead of train.py.
    """
    address = f"127.0.0.1:{free_port()}"
    programs = programs or [[str(ROOT / "train.py")]] * count
    return [
        subprocess.Popen(
            [
                *(sys.executable, *program, *map(str, flags)),
                *("--coordinator-address", address),
                *("--num-processes", str(len(programs)), "--process-id", str(i)),
            ],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(devices),
        )
        for i, program in enumerate(programs)
    ]


def ended(
    processes: list[subprocess.Popen[str]], seconds: float = 240
) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each, once all have ended."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=seconds)
        found.append((process.returncode, said(out), said(err)))
    return found


def said(text: str) -> str:
    """The output of a process, without JAX's lines about its connections."""
    theirs = ("E1", "E0", "W1", "W0", "I1", "I0")
    text = re.sub(r"\[Gloo\][^\[\n]*", "", text)  # several threads may write to one line
    text = re.sub(r"[^\n]*peer ranks[^\n]*\n?", "", text)  # the rest of such a line
    lines = (line for line in text.splitlines(True) if line.strip())
    return "".join(line for line in lines if not line.startswith(theirs))


def call(script: str, *flags: object, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Runs a script to its end, as one process."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, flags)],
        text=True,
        capture_output=True,
        env=environment(devices),
    )
