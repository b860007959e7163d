"""Makes the folder of a new run, and removes it again if the run does not begin."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gptjax.store.runs import RUNS, check_free, is_run, remove_beginning


@contextlib.contextmanager
def taken(path: Path | None, preset: str, overwrite: bool) -> Iterator[Path]:
    """Makes the folder of a new run. Call it early, so that no other process takes the name.

    If the block fails before config.json is written, everything made here is removed again.

    Args:
        path: the folder; None makes one with a new name, see `new_folder`.
        overwrite: the folder may contain a run.

    Raises:
        InputError: the folder contains files that the run would overwrite; they are unchanged.
    """
    if path is not None:
        check_free(path, overwrite)
    made = [p for p in (path or RUNS / "x").parents if not p.exists()]
    if path is None:
        path = new_folder(preset)
        made.insert(0, path)
    elif not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        made.insert(0, path)
    try:
        yield path
    except BaseException:
        if path in made and not is_run(path):
            remove_beginning(path)
            for folder in made:
                with contextlib.suppress(OSError):  # another process has put something there
                    folder.rmdir()
        raise


def new_folder(preset: str, runs: Path = RUNS) -> Path:
    """Makes runs/<preset>-<date>-<time>, and adds a number if that folder exists."""
    base = runs / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, n = base, 1
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not os.path.lexists(path):  # `runs` itself is a file
                raise
        n += 1
        path = base.with_name(f"{base.name}-{n}")
