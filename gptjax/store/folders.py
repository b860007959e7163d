"""The folder of a new run: made at the start, exclusively, and removed if the run never begins."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gptjax.store.runs import RUNS, check_free, is_run, remove_beginning


@contextlib.contextmanager
def taken(path: Path | None, preset: str, overwrite: bool) -> Iterator[Path]:
    """Makes the folder of a new run before anything slow, so that no other process takes the name.

    If the block fails before config.json is written, everything made here is removed again.

    Args:
        path: the folder; None makes one with a new name, see `new_folder`.
        overwrite: the folder may hold a run.

    Raises:
        InputError: the folder holds something; nothing in it was touched.
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
    """Makes runs/<preset>-<date>-<time>, with a number behind it if another run has that name."""
    base = runs / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, n = base, 1
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not os.path.lexists(path):  # what stands in the way is `runs` itself
                raise
        n += 1
        path = base.with_name(f"{base.name}-{n}")
