"""Saves and loads checkpoints. This is the only file that uses Orbax.

A checkpoint is a folder `checkpoints/<step>` with Orbax's `params` and `opt_state` and our
`manifest.json` (manifest.py). It is written under a temporary name and renamed when complete. So a
folder named after its step was once complete, and its manifest tells whether it still is.
"""

import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from gptjax.backends.distributed import ALONE, Peers, first_of_any
from gptjax.errors import RunError, one_line
from gptjax.files import flush
from gptjax.store.listing import Checkpoint, best, check_no_link, discard, list_checkpoints
from gptjax.store.manifest import DamagedError, verify, write_manifest
from gptjax.training import TrainState

# Allowance for a checkpoint's files that are not arrays: metadata and the database's index.
OVERHEAD_BYTES = 64 * 2**20

# Orbax would create directories in the background. If one cannot be created, its threads wait for
# minutes, and the process cannot exit until they end.
FOLDERS_FIRST = ocp.options.AsyncOptions(create_directories_asynchronously=False)


def load_params(path: Path, abstract_params: Any) -> Any:
    """Loads the parameters only. They may have been saved on other devices.

    Args:
        abstract_params: shapes and dtypes from `jax.eval_shape`, with shardings from
            `sharding.target`; arrays without a sharding go to this process's first device.

    Raises:
        DamagedError: the checkpoint differs from what was saved, or does not fit the shapes.
    """
    return _load(path, {"params": abstract_params})["params"]


def load_state(path: Path, abstract_state: TrainState) -> TrainState:
    """Loads the whole training state, placed as `load_params` places parameters.

    Raises:
        DamagedError: as in `load_params`.
    """
    items = {"params": abstract_state.params, "opt_state": abstract_state.opt_state}
    step = np.asarray(int(path.name), abstract_state.step.dtype)
    where = abstract_state.step.sharding
    if where is None:
        placed = jnp.asarray(step)
    else:  # each process has the number; together they make one array
        placed = jax.make_array_from_callback((), where, lambda _: step)
    return TrainState(placed, **_load(path, items))


def newest_whole(
    directory: Path,
    load: Callable[[Path], Any],
    tell: Callable[[str], None],
    peers: Peers = ALONE,
) -> tuple[Checkpoint, Any] | None:
    """Loads the newest checkpoint that is whole.

    Args:
        load: loads a checkpoint from its path, or raises a DamagedError.
        tell: receives a line for each newer checkpoint that is damaged.
        peers: the processes of the run, which all load the same checkpoint.

    Returns:
        The checkpoint and the result of `load`, or None if no checkpoint can be loaded.
    """
    found, problems = list_checkpoints(directory)
    for problem in problems:
        tell(problem)
    here = {checkpoint.step: checkpoint for checkpoint in found}
    for step in reversed(peers.agree(sorted(here))):
        loaded, problem = None, None
        try:
            if step not in here:  # a network file system may show a folder late
                raise DamagedError(f"{directory / str(step)} cannot be seen by every process")
            loaded = load(here[step].path)
        except DamagedError as error:
            problem = str(error)
        problem = peers.agree(problem, first_of_any)
        if problem is None:
            return here[step], loaded
        tell(problem)
    return None


class Saver:
    """Saves checkpoints in the background and prunes them: the newest `keep` and the best stay.

    Only one save runs at a time. An error in the background is raised by the next call. A context
    manager: it always finishes the current save before it exits.

    With several processes, each writes its part of the arrays, and process 0 writes the rest.
    """

    def __init__(self, directory: Path, keep: int, peers: Peers = ALONE) -> None:
        self._directory = directory
        self._keep = keep
        self._peers = peers
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        if not peers.leads:
            return
        check_no_link(directory)
        directory.mkdir(exist_ok=True)
        for path in directory.glob("[tu]*-*"):  # left unfinished by a killed process
            if path.name.startswith(("tmp-", "unused-")):
                shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()  # the block's error is reported, not one of this save

    def save(self, state: TrainState, val_loss: float | None, skipped: int = 0) -> None:
        """Copies the state off the device and returns; the files are written in the background.

        Args:
            val_loss: nats per token, if the state was evaluated.
            skipped: number of updates skipped so far because they were not finite.

        Raises:
            RunError: this checkpoint or the previous one cannot be written.
        """
        self.wait()
        step = int(state.step)
        temporary = self._directory / f"tmp-{step}"
        items = {"params": state.params, "opt_state": state.opt_state}
        try:
            if self._peers.leads:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()  # fails if the run's folder has vanished; Orbax would remake it
                temporary.rmdir()
            with ocp.Context(async_options=FOLDERS_FIRST):
                response = ocp.save_checkpointables_async(
                    str(temporary.absolute()), items, overwrite=True
                )
        except Exception as error:
            raise self._failure(step, error) from error
        self._thread = threading.Thread(
            target=self._finish,
            args=(response, temporary, step, val_loss, skipped),
            name="checkpoint",
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits until no save is running.

        Raises:
            RunError: the last checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _finish(
        self, response: Any, temporary: Path, step: int, val_loss: float | None, skipped: int
    ) -> None:
        try:
            response.result()
            if not self._peers.leads:
                return
            write_manifest(temporary, step, val_loss, skipped)
            final = self._directory / str(step)
            if final.exists():
                discard(final)
            temporary.rename(final)
            flush(self._directory)
            self._prune()
        except Exception as error:
            self._error = self._failure(step, error)

    def _prune(self) -> None:
        found, _ = list_checkpoints(self._directory)
        stay = set(found[-self._keep :]) | {best(found)}
        for checkpoint in found:
            if checkpoint not in stay:
                discard(checkpoint.path)

    def _failure(self, step: int, error: BaseException) -> RunError:
        return RunError(
            f"checkpoint {step} could not be written to {self._directory}: {one_line(error)}; "
            "the earlier checkpoints are unchanged"
        )


def _load(path: Path, abstract_items: dict[str, Any]) -> dict[str, Any]:
    """Loads the arrays with the given shardings, or onto this process's first device.

    Every problem is found before memory is allocated, and raised as a DamagedError.
    """
    # 1. Check that the files are those of the manifest, and not too large.
    size = verify(path, tuple(abstract_items))
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here),
        abstract_items,
    )
    expected = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(placed))
    if size > 2 * expected + OVERHEAD_BYTES:
        raise DamagedError(
            f"checkpoint {path} does not fit this run's model: its files have {size} bytes, "
            f"but its arrays need {expected}"
        )
    # 2. Check that names, shapes and dtypes are those of this model. Orbax can raise any exception
    # on a broken file, so its calls share one `try`; the error for a mismatch is raised after it.
    try:
        stored = ocp.checkpointables_metadata(str(path.absolute())).metadata
        stored = {item: stored.get(item) for item in placed}
        # In 0.1.0, an optimizer without clipping had no link for clipping in its chain, so the
        # other links were stored one position lower. That link's state is empty: add it afterwards.
        links = placed.get("opt_state", ())
        clip = links[:1] if _has_links(stored.get("opt_state"), len(links) - 1) else ()
        if clip:
            placed["opt_state"] = links[1:]
        different = _shapes(stored).items() ^ _shapes(placed).items()
        if not different and _chunks_fit(stored):
            loaded = ocp.load_checkpointables(str(path.absolute()), placed)
            return loaded | ({"opt_state": (*clip, *loaded["opt_state"])} if clip else {})
    except Exception as error:
        raise DamagedError(f"checkpoint {path} cannot be read: {one_line(error)}") from error
    name = min(different)[0] if different else "how its arrays are cut into chunks"
    raise DamagedError(f"checkpoint {path} does not fit this run's model: {name} differs")


def _has_links(stored: Any, count: int) -> bool:
    """Whether the stored optimizer state is a chain of `count` links."""
    return isinstance(stored, list) and len(stored) == count


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array by name, to compare them before allocating memory."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _chunks_fit(stored: Any) -> bool:
    """Whether no array is stored in chunks larger than itself: a chunk is allocated as a whole."""
    return all(
        chunk <= max(size, 1)
        for leaf in jax.tree.leaves(stored)
        for chunk, size in zip(leaf.storage_metadata.chunk_shape, leaf.shape, strict=True)
    )
