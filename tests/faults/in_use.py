"""python in_use.py FILE train.py ...: runs the script, and writes to FILE what memory is in use.

A line every 300 ms or so: bytes that are allocated and not freed, after a garbage collection. That
is not what the system sees: an allocator keeps what is freed, so what leaks is first taken from
there, and what does not leak may grow with the holes between it.
"""

import ctypes
import gc
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


def write_what_is_used(path: str) -> None:
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Mallinfo2
    with open(path, "w", buffering=1) as file:
        while True:
            gc.collect()
            now = ask()
            file.write(f"{now.uordblks + now.hblkhd}\n")
            time.sleep(0.3)


if __name__ == "__main__":
    threading.Thread(target=write_what_is_used, args=sys.argv[1:2], daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
