"""python peer.py MOMENT FILE FLAGS...: train.py, which creates FILE at a given moment.

MOMENT is `compile`, or the first `step`, `evaluation` or `save` after a checkpoint was saved. The
process then waits for a second, so that a test can signal it at that moment.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptjax.app import loop
from gptjax.store import runs

SECONDS = 1.0


def main(moment: str, file: str, *flags: str) -> int:
    """Trains; returns the exit status."""
    checkpoints = Path(flags[flags.index("--out-dir") + 1]) / runs.CHECKPOINTS

    def has_come() -> bool:
        has_saved = any(path.name.isdigit() for path in checkpoints.glob("*"))
        return not Path(file).exists() and (has_saved or moment == "compile")

    def announced(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if has_come():
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
