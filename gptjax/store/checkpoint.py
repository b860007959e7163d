"""Checkpoints: the only file that knows Orbax.

A checkpoint is a folder `checkpoints/<step>` with Orbax's `params` and `opt_state` and our
`manifest.json` (manifest.py). It is written under another name and renamed when complete, so a
folder that is called by its step was once whole, and its manifest tells whether it still is.
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

# Files of a checkpoint beyond its arrays' bytes: metadata, and the tree of their database.
OVERHEAD_BYTES = 64 * 2**20

# Made in the background, a folder that cannot be made has Orbax's threads wait for it for minutes,
# and the process with them when it should end.
FOLDERS_FIRST = ocp.options.AsyncOptions(create_directories_asynchronously=False)


def load_params(path: Path, abstract_params: Any) -> Any:
    """Parameters alone, whatever devices they were saved on.

    Args:
        abstract_params: their shapes and dtypes, from `jax.eval_shape`; and where they are placed,
            from `sharding.target`, or on this process's default device.

    Raises:
        DamagedError: the checkpoint differs from what was saved, or has another shape.
    """
    return _load(path, {"params": abstract_params})["params"]


def load_state(path: Path, abstract_state: TrainState) -> TrainState:
    """The whole training state, placed as `load_params` places parameters.

    Raises:
        DamagedError: as `load_params`.
    """
    items = {"params": abstract_state.params, "opt_state": abstract_state.opt_state}
    step = np.asarray(int(path.name), abstract_state.step.dtype)
    where = abstract_state.step.sharding
    if where is None:
        placed = jnp.asarray(step)
    else:  # every process has the number; together it is one array
        placed = jax.make_array_from_callback((), where, lambda _: step)
    return TrainState(placed, **_load(path, items))


def newest_whole(
    directory: Path,
    load: Callable[[Path], Any],
    tell: Callable[[str], None],
    peers: Peers = ALONE,
) -> tuple[Checkpoint, Any] | None:
    """The newest checkpoint that can be loaded, and what `load` made of it; None if there is none.

    Args:
        tell: receives a line for each newer one that is damaged.
        peers: which load the same one.
    """
    found, problems = list_checkpoints(directory)
    for problem in problems:
        tell(problem)
    here = {checkpoint.step: checkpoint for checkpoint in found}
    for step in reversed(peers.agree(sorted(here))):
        loaded, problem = None, None
        try:
            if step not in here:  # a network file system may show it late
                raise DamagedError(f"{directory / str(step)} is not there for every process")
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

    One save is under way at a time. What goes wrong in the background is raised by the next call.
    A context manager: whatever ends it, the save that is under way is finished first.

    Of several processes, each writes its part of the arrays, and process 0 all else.
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
        for path in directory.glob("[tu]*-*"):  # what a killed process left half done
            if path.name.startswith(("tmp-", "unused-")):
                shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()  # its own failure, if any, is not the one to tell

    def save(self, state: TrainState, val_loss: float | None, skipped: int = 0) -> None:
        """Copies the state off the device and returns; the rest happens in the background.

        Args:
            val_loss: nats per token, if the state was evaluated.
            skipped: updates left out so far because they were not finite.

        Raises:
            RunError: this save, or the one before it, cannot be written.
        """
        self.wait()
        step = int(state.step)
        temporary = self._directory / f"tmp-{step}"
        items = {"params": state.params, "opt_state": state.opt_state}
        try:
            if self._peers.leads:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()  # not its parents, as Orbax would: a folder that vanished is told
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
            "the earlier ones are as they were"
        )


def _load(path: Path, abstract_items: dict[str, Any]) -> dict[str, Any]:
    """Loads the arrays to where their shapes say, or onto this process's first device.

    Every problem is found before memory is allocated for it, and raised as a DamagedError.
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
            f"checkpoint {path} is not of this run's model: its files have {size} bytes, "
            f"and its arrays {expected}"
        )
    # 2. Check that names, shapes and dtypes are those of this model. Orbax can raise any exception
    # on a broken file, so its calls share one `try`; the error for a mismatch is raised after it.
    try:
        stored = ocp.checkpointables_metadata(str(path.absolute())).metadata
        stored = {item: stored.get(item) for item in placed}
        # In 0.1.0 an optimizer without clipping had no link for it, so the other links were stored
        # one position lower. The missing link's state is empty: it is added after loading.
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
    raise DamagedError(f"checkpoint {path} is not of this run's model: {name} differs")


def _has_links(stored: Any, count: int) -> bool:
    """Whether the stored optimizer state is a chain of `count` links."""
    return isinstance(stored, list) and len(stored) == count


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array by name: compared before memory for any is allocated."""
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
