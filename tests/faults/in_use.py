"""python in_use.py FILE METRICS train.py ...: runs the script, and writes its memory use to FILE.

It writes a line about every 100 ms: the run's newest step in its metrics.jsonl, METRICS, and the
bytes that are allocated and not freed, after a garbage collection. The system's figure would be
less useful: an allocator keeps freed memory, so a leak first uses that memory, and fragmentation
can make the process grow without a leak.
"""

import ctypes
import gc
import json
import os
import runpy
import sys
import threading
import time


class Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2` (2.33 and later)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def newest_step(metrics: str) -> int:
    """0 before the first line."""
    if not os.path.exists(metrics):
        return 0
    with open(metrics) as file:
        lines = file.read().splitlines()
    return json.loads(lines[-1])["step"] if lines else 0


def write_what_is_used(path: str, metrics: str) -> None:
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Mallinfo2
    with open(path, "w", buffering=1) as file:
        while True:
            gc.collect()
            now = ask()
            file.write(f"{newest_step(metrics)} {now.uordblks + now.hblkhd}\n")
            time.sleep(0.1)


if __name__ == "__main__":
    threading.Thread(target=write_what_is_used, args=sys.argv[1:3], daemon=True).start()
    sys.argv = sys.argv[3:]
    runpy.run_path(sys.argv[0], run_name="__main__")
