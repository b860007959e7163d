"""Checkpoints: the only file that knows Orbax.

A checkpoint is a folder `checkpoints/<step>` with Orbax's `params` and `opt_state` and our
`manifest.json`: step, validation loss, and the sha256 of every file, because Orbax reads a flipped
bit without noticing. It is written under another name and renamed when complete, so a folder that
is called by its step was once whole, and its manifest tells whether it still is.
"""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from gptjax.errors import InputError, RunError
from gptjax.files import read_json, write_json
from gptjax.training import TrainState

MANIFEST = "manifest.json"
FORMAT = 1


class Checkpoint(NamedTuple):
    """One checkpoint on the disk. `val_loss` is None for one saved when a run was interrupted."""

    step: int
    path: Path
    val_loss: float | None


class DamagedError(InputError):
    """A checkpoint is not what was saved; the message names the file."""


def list_checkpoints(directory: Path) -> tuple[list[Checkpoint], list[str]]:
    """The checkpoints of a folder by step, oldest first, and what is wrong with the others.

    Only manifests are read; `verify` reads everything.
    """
    found, problems = [], []
    for path in directory.iterdir() if directory.is_dir() else ():
        if not _is_step(path):
            continue
        try:
            manifest = _read_manifest(path)
        except InputError as error:
            problems.append(str(error))
        else:
            found.append(Checkpoint(int(path.name), path, manifest["val_loss"]))
    return sorted(found), problems


def verify(path: Path, items: tuple[str, ...] = ("params", "opt_state")) -> None:
    """Compares the files of a checkpoint with its manifest.

    Args:
        items: what is about to be read; other items' files are not looked at.

    Raises:
        DamagedError: a file is missing or has other bytes than were saved.
    """
    for name, digest in _read_manifest(path)["files"].items():
        top = name.split("/")[0]
        if "/" in name and top not in items:
            continue
        file = path / name
        if not file.is_file():
            raise DamagedError(f"checkpoint {path} is incomplete: {name} is missing")
        if _sha256(file) != digest:
            raise DamagedError(f"checkpoint {path} is damaged: {name} is not as it was saved")


def load_params(path: Path, abstract_params: Any) -> Any:
    """Parameters alone, on this process's default device, whatever device they were saved on.

    Args:
        abstract_params: their shapes and dtypes, from `jax.eval_shape`.

    Raises:
        DamagedError: the checkpoint is not what was saved, or of another shape.
    """
    return _load(path, {"params": abstract_params})["params"]


def load_state(path: Path, abstract_state: TrainState) -> TrainState:
    """The whole training state, placed as `load_params` places parameters.

    Raises:
        DamagedError: as `load_params`.
    """
    items = {"params": abstract_state.params, "opt_state": abstract_state.opt_state}
    step = jax.numpy.asarray(int(path.name), abstract_state.step.dtype)
    return TrainState(step, **_load(path, items))


def newest_whole(
    directory: Path, load: Callable[[Path], Any], tell: Callable[[str], None]
) -> tuple[Checkpoint, Any] | None:
    """The newest checkpoint that can be loaded, and what `load` made of it; None if there is none.

    Args:
        tell: receives a line for each newer one that is damaged.
    """
    found, problems = list_checkpoints(directory)
    for problem in problems:
        tell(problem)
    for checkpoint in reversed(found):
        try:
            return checkpoint, load(checkpoint.path)
        except DamagedError as error:
            tell(str(error))
    return None


def best(found: list[Checkpoint]) -> Checkpoint | None:
    """The one of lowest validation loss (the earliest of equals); None if none was evaluated."""
    evaluated = [c for c in found if c.val_loss is not None]
    return min(evaluated, key=lambda c: (c.val_loss, c.step)) if evaluated else None


class Saver:
    """Saves checkpoints in the background and prunes them: the newest `keep` and the best stay.

    One save is under way at a time. What goes wrong in the background is raised by the next call.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        directory.mkdir(exist_ok=True)
        for path in directory.glob("[tu]*-*"):  # what a killed process left half done
            if path.name.startswith(("tmp-", "unused-")):
                shutil.rmtree(path, ignore_errors=True)

    def save(self, state: TrainState, val_loss: float | None) -> None:
        """Copies the state off the device and returns; the rest happens in the background.

        Raises:
            RunError: this save, or the one before it, cannot be written.
        """
        self.wait()
        step = int(state.step)
        temporary = self._directory / f"tmp-{step}"
        items = {"params": state.params, "opt_state": state.opt_state}
        try:
            # Orbax's threads wait minutes for a folder that cannot be made: try it first.
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            temporary.rmdir()
            response = ocp.save_checkpointables_async(
                str(temporary.absolute()), items, overwrite=True
            )
        except Exception as error:
            raise self._failure(step, error) from error
        self._thread = threading.Thread(
            target=self._finish, args=(response, temporary, step, val_loss), name="checkpoint"
        )
        self._thread.start()

    def wait(self) -> None:
        """Returns when nothing is under way.

        Raises:
            RunError: the last save could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _finish(self, response: Any, temporary: Path, step: int, val_loss: float | None) -> None:
        try:
            response.result()
            files = sorted(p for p in temporary.rglob("*") if p.is_file())
            manifest = {
                "format": FORMAT,
                "step": step,
                "val_loss": val_loss,
                "files": {p.relative_to(temporary).as_posix(): _sha256(p) for p in files},
            }
            for file in files:
                _flush(file)
            write_json(temporary / MANIFEST, manifest)
            final = self._directory / str(step)
            if final.exists():
                _discard(final)
            temporary.rename(final)
            _flush(self._directory)
            self._prune()
        except Exception as error:
            self._error = self._failure(step, error)

    def _prune(self) -> None:
        found, _ = list_checkpoints(self._directory)
        stay = set(found[-self._keep :]) | {best(found)}
        for checkpoint in found:
            if checkpoint not in stay:
                _discard(checkpoint.path)

    def _failure(self, step: int, error: BaseException) -> RunError:
        reason = " ".join(str(error).split())[:300]
        return RunError(
            f"checkpoint {step} could not be written to {self._directory}: {reason}; "
            "the earlier ones are as they were"
        )


def set_newer_aside(directory: Path, step: int) -> None:
    """Renames the checkpoints after `step`, the newest whole one, to damaged-<step>.

    A resumed run must not meet them again, and nothing of them is lost.
    """
    for path in directory.iterdir() if directory.is_dir() else ():
        if _is_step(path) and int(path.name) > step:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def _discard(path: Path) -> None:
    """Removes a checkpoint: by rename first, so that none is ever seen half removed."""
    unused = path.with_name(f"unused-{path.name}")
    shutil.rmtree(unused, ignore_errors=True)
    path.rename(unused)
    shutil.rmtree(unused, ignore_errors=True)


def _load(path: Path, abstract_items: dict[str, Any]) -> dict[str, Any]:
    verify(path, tuple(abstract_items))
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), abstract_items
    )
    try:
        stored = ocp.checkpointables_metadata(str(path.absolute())).metadata
        different = set(_shapes({k: stored.get(k) for k in placed})) ^ set(_shapes(placed))
        if not different:
            return ocp.load_checkpointables(str(path.absolute()), placed)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise DamagedError(f"checkpoint {path} cannot be read: {reason}") from error
    name = min(different)[0]
    raise DamagedError(f"checkpoint {path} is not of this run's model: {name} differs")


def _shapes(tree: Any) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and dtype of every array: compared before memory for any is allocated."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = read_json(path / MANIFEST)
    except InputError as error:
        raise DamagedError(f"checkpoint {path} is incomplete: {error}") from error
    version, val_loss, files = (manifest.get(k) for k in ("format", "val_loss", "files"))
    if version != FORMAT:
        raise DamagedError(f"checkpoint {path} has format {version!r}: this version reads {FORMAT}")
    if not isinstance(files, dict) or not isinstance(val_loss, float | None):
        raise DamagedError(f"checkpoint {path} is damaged: {MANIFEST} is no manifest")
    if any(".." in name.split("/") or name.startswith("/") for name in files):
        raise DamagedError(f"checkpoint {path} is damaged: {MANIFEST} leads out of it")
    return manifest


def _is_step(path: Path) -> bool:
    return re.fullmatch(r"\d{1,18}", path.name) is not None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
