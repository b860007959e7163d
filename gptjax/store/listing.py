"""A run's folder of checkpoints: lists them, finds the best, and removes old ones."""

import contextlib
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.store.manifest import read_manifest


class Checkpoint(NamedTuple):
    """One checkpoint on disk.

    Attributes:
        val_loss: nats per token; None if it was saved between evaluations.
        skipped: number of updates skipped before it because they were not finite.
    """

    step: int
    path: Path
    val_loss: float | None
    skipped: int = 0


def list_checkpoints(directory: Path) -> tuple[list[Checkpoint], list[str]]:
    """Lists a folder's checkpoints by step, oldest first, and the problems of unusable ones.

    Reads only the manifests; `verify` reads all files.

    Raises:
        InputError: the folder is a link.
    """
    check_no_link(directory)
    found, problems = [], []
    for path in directory.iterdir() if directory.is_dir() else ():
        if not _is_step(path):
            continue
        try:
            manifest = read_manifest(path)
        except InputError as error:
            problems.append(str(error))
        else:
            found.append(
                Checkpoint(int(path.name), path, manifest["val_loss"], manifest.get("skipped", 0))
            )
    return sorted(found), sorted(problems)


def best(found: list[Checkpoint]) -> Checkpoint | None:
    """The checkpoint with the lowest validation loss, the earliest in a tie, or None."""
    evaluated = [c for c in found if c.val_loss is not None]
    return min(evaluated, key=lambda c: (c.val_loss, c.step)) if evaluated else None


def set_newer_aside(directory: Path, step: int) -> None:
    """Renames the checkpoints after `step`, the newest whole one, to damaged-<step>.

    A resumed run then never reads them again, and their files are kept.
    """
    check_no_link(directory)
    for path in directory.iterdir() if directory.is_dir() else ():
        if _is_step(path) and int(path.name) > step:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def discard(path: Path) -> None:
    """Removes a checkpoint. Renames it first, so that a half-removed one is never listed."""
    unused = path.with_name(f"unused-{path.name}")
    shutil.rmtree(unused, ignore_errors=True)
    path.rename(unused)
    shutil.rmtree(unused, ignore_errors=True)


def remove_checkpoints(directory: Path) -> None:
    """Removes what a run wrote into its folder of checkpoints, and the folder if it is then empty.

    Raises:
        InputError: the folder is a link.
    """
    check_no_link(directory)
    for path in directory.iterdir() if directory.is_dir() else ():
        if _is_step(path) or re.fullmatch(r"(tmp|unused|damaged)-\d+", path.name, re.ASCII):
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def check_no_link(path: Path) -> None:
    """Checks that a path within a run is not a symbolic link.

    Raises:
        InputError: the path is a link.
    """
    if path.is_symlink():
        raise InputError(
            f"{path} is a link, which a run must not contain; to keep runs on another disk, "
            "give an --out-dir there"
        )


def _is_step(path: Path) -> bool:
    """Whether a folder has the name of a checkpoint: a step, below 2**31."""
    return re.fullmatch(r"0|[1-9]\d{0,9}", path.name, re.ASCII) is not None and (
        int(path.name) < 2**31
    )
