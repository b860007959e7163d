"""The folder of a new run: made at once, for one process, and removed if no run comes of it."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gptjax.store.runs import RUNS, check_free, is_run, remove_beginning


@contextlib.contextmanager
def taken(path: Path | None, preset: str, overwrite: bool) -> Iterator[Path]:
    """The folder of a new run, made before anything slow, so that no other process takes its name.

    If the block fails before config.json is written, what was made here is removed again.

    Args:
        path: None is a folder of a new name, see `new_folder`.
        overwrite: it may hold a run.

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
    for n in itertools.count(1):
        path = base if n == 1 else base.with_name(f"{base.name}-{n}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not os.path.lexists(path):  # what stands in the way is `runs` itself
                raise
    raise AssertionError("a number is free")
