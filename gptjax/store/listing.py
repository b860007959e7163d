"""The folder of a run's checkpoints: which there are, which is best, and how one leaves it."""

import contextlib
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.store.manifest import read_manifest


class Checkpoint(NamedTuple):
    """One checkpoint on the disk.

    Attributes:
        val_loss: nats per token; None for one saved between evaluations.
        skipped: updates left out so far because they were not finite.
    """

    step: int
    path: Path
    val_loss: float | None
    skipped: int = 0


def list_checkpoints(directory: Path) -> tuple[list[Checkpoint], list[str]]:
    """The checkpoints of a folder by step, oldest first, and what is wrong with the others.

    Only manifests are read; `verify` reads everything.

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
    """The one of lowest validation loss (the earliest of equals); None if none was evaluated."""
    evaluated = [c for c in found if c.val_loss is not None]
    return min(evaluated, key=lambda c: (c.val_loss, c.step)) if evaluated else None


def set_newer_aside(directory: Path, step: int) -> None:
    """Renames the checkpoints after `step`, the newest whole one, to damaged-<step>.

    A resumed run must not meet them again, and nothing of them is lost.
    """
    check_no_link(directory)
    for path in directory.iterdir() if directory.is_dir() else ():
        if _is_step(path) and int(path.name) > step:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def discard(path: Path) -> None:
    """Removes a checkpoint: by rename first, so that none is ever seen half removed."""
    unused = path.with_name(f"unused-{path.name}")
    shutil.rmtree(unused, ignore_errors=True)
    path.rename(unused)
    shutil.rmtree(unused, ignore_errors=True)


def remove_checkpoints(directory: Path) -> None:
    """Removes what a run made in its folder of checkpoints; the folder too, if that was all.

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
    """Refuses a folder of a run that is in truth elsewhere.

    Raises:
        InputError: it is a link.
    """
    if path.is_symlink():
        raise InputError(
            f"{path} is a link: nothing in a run may lead out of it; to keep runs on another disk, "
            "give an --out-dir there"
        )


def _is_step(path: Path) -> bool:
    """Whether a folder is called as a checkpoint of some step is; a step has 31 bits."""
    return re.fullmatch(r"[1-9]\d{0,9}", path.name, re.ASCII) is not None and (
        int(path.name) < 2**31
    )
