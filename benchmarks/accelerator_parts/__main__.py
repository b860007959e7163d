"""The process of a part: writes rows as lines of JSON to stdout, and everything else to stderr.

python -m benchmarks.accelerator_parts NAME SETTINGS
"""

import json
import os
import signal
import sys
import threading
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any


def main(name: str, settings: str) -> None:
    """Measures the part `name`, a module of this package."""
    end_with_parent()
    stdout = sys.stdout

    def found(row: dict[str, Any]) -> None:
        print(json.dumps(row, allow_nan=False), file=stdout, flush=True)

    with redirect_stdout(sys.stderr):
        import_module(f"{__package__}.{name}").measure(found, **json.loads(settings))


def end_with_parent() -> None:
    """Ends this process and its children when the other end of stdin is closed.

    A killed parent closes it too. Otherwise nothing would stop a part that trains for hours.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
