"""Runs one part of the measurement in its own process, and stops it when its time is over.

JAX keeps a GPU's memory as long as its process lives, and a part that aborts must not end the
others.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
SHOWN = 30  # lines of the log of a part that failed


def run(
    name: str,
    settings: dict[str, Any],
    seconds: float,
    found: Callable[[Row], None],
    folder: Path,
) -> str:
    """Measures a part.

    Args:
        name: a module of this package.
        settings: the arguments of its `measure`, ready for JSON.
        seconds: time after which it is stopped, with all its child processes.
        found: receives each row as soon as it is measured.
        folder: for its log, and for compiled programs that the parts share.

    Returns:
        Why the part did not finish; empty if it did. If it failed, the end of its log goes to
        stderr.
    """
    package = __name__.rpartition(".")[0]
    command = [sys.executable, "-m", package, name, json.dumps(settings)]
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a part may have several processes
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    }
    if settings["quick"]:  # toy runs mostly compile
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
        environment["XLA_FLAGS"] = flags.strip()
    cut = threading.Event()
    log = folder / f"{name}.log"
    with log.open("w+") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,  # never written to; see __main__.py
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )

        def stop() -> None:
            cut.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for line in process.stdout:
                found(json.loads(line))
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            timer.cancel()
            process.stdin.close()
            process.stdout.close()
    if cut.is_set():
        return f"stopped after {seconds:.0f} s"
    if not status:
        return ""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    print("\n".join(lines[-SHOWN:]), file=sys.stderr, flush=True)
    return f"failed (status {status}): {lines[-1][:300]}"
