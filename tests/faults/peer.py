"""python peer.py MOMENT FILE FLAGS...: train.py, which says in FILE that a moment has come.

The moment is `step`, `evaluation`, `save` or `compile`: the process comes to it for the first time,
makes FILE, and stays in it for a second, so that a test can signal it there.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptjax.app import loop

SECONDS = 1.0


def main(moment: str, file: str, *flags: str) -> int:
    """Trains; returns the exit status."""

    def announced(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not Path(file).exists():
                Path(file).touch()
                time.sleep(SECONDS)
            return function(*args, **kwargs)

        return call

    owner, name = {
        "compile": (loop, "compile_and_initialize"),
        "step": (loop.Loop, "_landed"),
        "evaluation": (loop, "evaluate"),
        "save": (loop.Saver, "save"),
    }[moment]
    setattr(owner, name, announced(getattr(owner, name)))
    import train  # it binds what it calls

    return train.main(list(flags))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
