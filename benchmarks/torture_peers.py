"""Kills, freezes and stops one of several processes repeatedly; see torture.py --processes 2.

The run is that of torture.py, trained by processes with two simulated devices each. At a random
moment, one of them gets SIGKILL, SIGSTOP or SIGTERM. The others must end within 30 seconds, unless
the processes have not joined yet, when they would wait five minutes for it. All start again with
--resume.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

DEVICES = 2
HEARTBEAT = 5
SECONDS = 30.0
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM)


class Lives:
    """The record of a run's processes.

    Attributes:
        given: how often each process got each signal.
        unjoined: number of signals before the processes had joined.
        wrong: errors, such as a process that ended late or with a wrong status.
        slowest: most seconds from a signal to the end of the last process.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.given: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest, self.unjoined = 0.0, 0
        self._count = count
        self._moments = random.Random(seed)

    def live(
        self, command: Callable[[], list[str]], longest: float, saves: Callable[[], int]
    ) -> None:
        """Starts all processes, and signals one of them at a random moment.

        Args:
            command: returns the run's command, without the flags for several processes.
            longest: most seconds from the second save to the signal.
            saves: returns the newest checkpoint's step.
        """
        with tempfile.TemporaryFile() as said:
            self._signal_one(self.start(command(), said.fileno()), said.fileno(), longest, saves)

    def _signal_one(
        self,
        processes: list[subprocess.Popen[bytes]],
        said: int,
        longest: float,
        saves: Callable[[], int],
    ) -> None:
        victim = self._moments.randrange(self._count)
        number = self._moments.choice(SIGNALS)
        name = f"{number.name} to process {victim}"
        self.given[name] += 1
        seen = {saves()}
        # A quarter of the signals come before the first save: while joining or compiling.
        early = self._moments.random() < 0.25
        while not early and len(seen) < 3 and all(p.poll() is None for p in processes):
            time.sleep(0.01)
            seen.add(saves())
        time.sleep(self._moments.uniform(0, 10 * longest if early else longest))
        joined = os.fstat(said).st_size > 0  # process 0 prints once all have joined
        processes[victim].send_signal(number)
        if not joined:
            self.unjoined += 1
            for process in processes:
                process.kill()
                process.wait()
            return
        began = time.monotonic()
        others = [p for i, p in enumerate(processes) if i != victim or number == signal.SIGTERM]
        statuses = {self._end_of(p, began) for p in others}
        self.slowest = max(self.slowest, time.monotonic() - began)
        for process in processes:
            process.kill()
            process.wait()
        # Before the run installs its handler, SIGTERM kills it.
        expected = {1} if number != signal.SIGTERM else {143}
        if statuses != expected and not (early and statuses <= {1, 143, -signal.SIGTERM}):
            self.wrong.append(f"{name}: exit statuses {statuses}")

    def start(
        self, command: list[str], said: int = subprocess.DEVNULL
    ) -> list[subprocess.Popen[bytes]]:
        """Starts the processes of a run. Process 0 prints to `said`."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{found.getsockname()[1]}"
        flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
        )
        several = ["--coordinator-address", address, "--num-processes", str(self._count)]
        several += ["--heartbeat-seconds", str(HEARTBEAT)]
        return [
            subprocess.Popen(
                [*command, *several, "--process-id", str(i)],
                stdout=subprocess.DEVNULL if i else said,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            )
            for i in range(self._count)
        ]

    def _end_of(self, process: subprocess.Popen[bytes], began: float) -> int | str:
        """Waits for a process, and returns its exit status."""
        try:
            return process.wait(SECONDS - (time.monotonic() - began))
        except subprocess.TimeoutExpired:
            return f"none after {SECONDS:.0f} s"


def survive(
    kills: int,
    lives: Lives,
    command: Callable[[Path, bool], list[str]],
    folders: tuple[Path, Path],
    longest: float,
    newest: Callable[[Path], int],
    damaged: Callable[[Path], int],
) -> int:
    """Compares a run with `kills` signals to an undisturbed one; returns its lost checkpoints."""
    killed, whole = folders
    began = time.monotonic()
    for process in lives.start(command(whole, False)):
        if process.wait():
            sys.exit("the undisturbed run failed")
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
    lost = 0
    for kill in range(kills):
        before = newest(killed)
        lives.live(lambda: command(killed, True), longest, lambda: newest(killed))
        lost += damaged(killed) + (newest(killed) < before)
        print(f"signal {kill + 1}: newest checkpoint {newest(killed)}", flush=True)
    for process in lives.start(command(killed, True)):
        process.wait()
    return lost
