"""Feeds tokens to the train loop, from the device's memory or from the host.

Both ways give the same batches, bit for bit, because a batch is a function of (key, step). So there
is no iterator to save: a resumed run starts to read at its own step.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax import training
from gptjax.backends.sharding import ROWS, everywhere
from gptjax.config import DEVICE_BYTES, RunConfig
from gptjax.data import WIDE, Block, wide_bits, wide_starts, window_starts
from gptjax.errors import InputError
from gptjax.fields import MAX_INT
from gptjax.training import ONE_DEVICE, Placement, make_keys

Array = jax.Array
# Maximum size of a block, which holds the windows of several steps. Two exist at a time.
BLOCK_BYTES = 2**22
# Number of an evaluation's batches that are read and sent to the device together.
GROUP = 8


class HostTokens(NamedTuple):
    """Tokens that stay on the host, such as a memory map.

    Attributes:
        tokens: (N,) ids.
        vocab_size: the ids that are read must be smaller; a large file is not checked in advance.
        mesh: the devices that receive the windows; each process reads only its own rows.
    """

    tokens: np.ndarray
    vocab_size: int
    mesh: Mesh | None

    def windows(self, starts_SB: np.ndarray, T: int) -> Array:
        """Reads the windows of T + 1 ids at these starts to the devices: (S, B, T + 1).

        A window that extends past the end of the text repeats the last id.

        Raises:
            InputError: the file has become shorter, or an id is not in the vocabulary.
        """
        self._check_size()
        shape = (*starts_SB.shape, T + 1)

        def read(rows: slice) -> np.ndarray:
            mine_SB = starts_SB[:, rows]
            found = np.empty((*mine_SB.shape, T + 1), self.tokens.dtype)
            for at in np.ndindex(mine_SB.shape):
                window = self.tokens[mine_SB[at] : mine_SB[at] + T + 1]
                found[at][: len(window)] = window
                if len(window) <= T:
                    found[at][len(window) :] = self.tokens[-1]
            self._check_ids(found)
            return found

        return self.put(shape, read)

    def put(self, shape: tuple[int, ...], read: Callable[[slice], np.ndarray]) -> Array:
        """Makes an array (S, B, ...) on the devices, with B divided over them.

        Args:
            read: returns the part of the array with the given rows, along B.
        """
        if self.mesh is None:
            return jnp.asarray(read(slice(None)))
        known: dict[tuple[Any, Any], np.ndarray] = {}

        def part(index: Any) -> np.ndarray:
            rows = index[1]
            if (rows.start, rows.stop) not in known:  # devices along `tensor` have the same rows
                known[rows.start, rows.stop] = read(rows)
            return known[rows.start, rows.stop]

        return jax.make_array_from_callback(shape, NamedSharding(self.mesh, P(None, ROWS)), part)

    def _check_size(self) -> None:
        """Checks the file's size, because reading past its end would kill the process."""
        path = getattr(self.tokens, "filename", None)
        if path is None:
            return
        size = Path(path).stat().st_size
        if size < self.tokens.nbytes:
            raise InputError(
                f"{path} had {self.tokens.nbytes} bytes when the run began, but has {size} now: "
                "prepare the text again, then resume"
            )

    def _check_ids(self, found: np.ndarray) -> None:
        largest = found.max(initial=0)
        if largest >= self.vocab_size:
            raise InputError(
                f"{getattr(self.tokens, 'filename', None) or 'the text'} has id {largest}, but the "
                f"vocabulary has only {self.vocab_size} ids: another tokenizer made the text"
            )


class Resident:
    """Training tokens in the memory of each device. The train loop gathers batches from them."""

    def __init__(self, mesh: Mesh | None, tokens: np.ndarray) -> None:
        self._tokens = everywhere(mesh, tokens)

    def at(self, step: int) -> Array:
        """Returns the tokens that the train loop takes to continue from a step."""
        del step
        return self._tokens

    def reach(self, step: int) -> int:
        """The last step that a dispatch from `step` may reach: there is no limit."""
        del step
        return MAX_INT

    def close(self) -> None:
        """Does nothing; `Ahead.close` ends its thread."""


class Ahead:
    """Training tokens on the host. A thread makes the next block while the device uses this one.

    Block k holds the windows of the steps from k * n to (k + 1) * n - 1, so it depends only on k.
    """

    def __init__(self, source: HostTokens, run_config: RunConfig) -> None:
        self._source, self._T = source, run_config.model.block_size
        self._steps = steps_a_block(run_config, source.tokens.dtype.itemsize)
        self._count = len(source.tokens) - self._T
        # The same limit as on the device, although the count itself would allow a few tokens more.
        self._is_wide = len(source.tokens) >= WIDE
        draw = wide_bits if self._is_wide else partial(window_starts, count=self._count)
        size, key = run_config.train.sequences_per_update, make_keys(run_config.seed).data
        self._draw = jax.jit(jax.vmap(lambda step_number: draw(key, step_number, batch_size=size)))
        self._thread = ThreadPoolExecutor(1, "reading")
        self._next: tuple[int, Future[Block]] | None = None
        self._now: tuple[int, Block] | None = None

    def at(self, step: int) -> Block:
        """Returns the block that contains a step; the train loop continues with it.

        Raises:
            InputError: the text cannot be read; see `HostTokens.windows`.
        """
        k = step // self._steps
        if self._now is None or self._now[0] != k:
            if self._next is None or self._next[0] != k:
                self._next = k, self._begin(k)
            self._now = k, self._next[1].result()
            self._next = k + 1, self._begin(k + 1)
        return self._now[1]

    def reach(self, step: int) -> int:
        """The last step that a dispatch from `step` may reach: the end of its block."""
        return (step // self._steps + 1) * self._steps

    def close(self) -> None:
        """Ends the thread after its current block."""
        self._thread.shutdown(cancel_futures=True)

    def _begin(self, k: int) -> Future[Block]:
        """Starts to make block k."""
        # The device draws the windows' starts, so that they equal those of `Resident`. Dispatch
        # this before the previous block's updates; otherwise it would wait for them.
        first = k * self._steps
        drawn = self._draw(np.arange(first, first + self._steps).astype(np.uint32))
        return self._thread.submit(self._make, first, drawn)

    def _make(self, first: int, drawn: Array) -> Block:
        starts_SB = np.asarray(drawn)
        if self._is_wide:
            starts_SB = wide_starts(starts_SB, self._count)
        windows_SBT = self._source.windows(starts_SB, self._T)
        return Block(everywhere(self._source.mesh, np.int32(first)), windows_SBT)


def steps_a_block(run_config: RunConfig, itemsize: int) -> int:
    """Number of steps in a block: up to the next log line, limited by BLOCK_BYTES."""
    train = run_config.train
    each = train.sequences_per_update * (run_config.model.block_size + 1) * itemsize
    return max(1, min(train.log_interval, train.eval_interval, BLOCK_BYTES // each))


def is_on_device(run_config: RunConfig, train: np.ndarray, val: np.ndarray) -> bool:
    """Whether a run keeps its tokens on its devices.

    Raises:
        InputError: the user asks for it, but the text has too many tokens to index on a device.
    """
    wanted, most = run_config.data_on_device, max(len(train), len(val))
    if wanted == "yes" and most >= WIDE:
        raise InputError(
            f"--data-on-device yes: the text has {most} tokens, and on a device it must have fewer "
            "than 2**31; leave the flag out"
        )
    if wanted == "auto":
        return most < WIDE and train.nbytes + val.nbytes <= DEVICE_BYTES
    return wanted == "yes"


def feed(
    run_config: RunConfig, mesh: Mesh | None, tokens: tuple[np.ndarray, np.ndarray]
) -> tuple[Resident | Ahead, Array | HostTokens]:
    """Returns the source of training tokens, and the validation tokens that `evaluate` takes.

    Args:
        tokens: the training split and the validation split.
    """
    val = to_validate(run_config, mesh, tokens)
    if not isinstance(val, HostTokens):
        return Resident(mesh, tokens[0]), val
    return Ahead(val._replace(tokens=tokens[0]), run_config), val


def to_validate(
    run_config: RunConfig, mesh: Mesh | None, tokens: tuple[np.ndarray, np.ndarray]
) -> Array | HostTokens:
    """Returns only the validation tokens; the arguments are those of `feed`."""
    if is_on_device(run_config, *tokens):
        return everywhere(mesh, tokens[1])
    return HostTokens(tokens[1], run_config.model.vocab_size, mesh)


def evaluate(
    model: nn.Module,
    params: Any,
    tokens: Array | HostTokens,
    *,
    max_windows: int = 0,
    placement: Placement = ONE_DEVICE,
) -> float:
    """`training.evaluate` for tokens on device or host, with the same result: nats per token."""
    if not isinstance(tokens, HostTokens):
        return training.evaluate(
            model, params, tokens, max_windows=max_windows, placement=placement
        )
    T, count = training.config_of(model).block_size, len(tokens.tokens)
    starts = training.evaluation_starts(count, T, max_windows, placement.parts)
    short = -len(starts) % min(len(starts), GROUP)  # pad, so that all groups have one shape
    starts = np.concatenate([starts, np.full((short, starts.shape[1]), count)])
    total = everywhere(tokens.mesh, np.float32(0))
    for group in np.split(starts, len(starts) // min(len(starts), GROUP)):
        targets = np.clip(count - 1 - group, 0, T).astype(np.int32)
        windows_SBT = tokens.windows(group, T)
        targets_SB = tokens.put(targets.shape, lambda rows, all=targets: all[:, rows])
        jax.block_until_ready(total)  # read only one group ahead
        total = training.add_losses(model, params, windows_SBT, targets_SB, total, placement)
    return float(total) / float(np.clip(count - 1 - starts, 0, T).sum())
