"""Joins the processes of a run, and chooses the mesh of their devices."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from gptjax.app.flags import FlagParser
from gptjax.app.script import name_of
from gptjax.backends.distributed import ALONE, Peers, join
from gptjax.backends.mesh import MeshShape, check_shape, default_shape
from gptjax.backends.sharding import make_mesh
from gptjax.config import GPTConfig, RunConfig
from gptjax.errors import InputError, RunError, one_line

HEARTBEAT_SECONDS = 10
LOST = (
    "another process of this run has ended, or cannot be reached: the checkpoints are unharmed; "
    "start all processes again with --resume"
)
FLAGS: dict[str, tuple[type, str, Any]] = {
    "coordinator_address": (str, "several processes: HOST:PORT of process 0", None),
    "num_processes": (int, "how many processes train together; 1 ignores a cluster", None),
    "process_id": (int, "the number of this process, from 0", None),
    "heartbeat_seconds": (
        int,
        "a process that is silent for this long counts as lost",
        HEARTBEAT_SECONDS,
    ),
}


def add_flags(parser: FlagParser) -> None:
    """Adds the flags of this module."""
    parser.add("mesh", str, "devices by axis, as in data=2,fsdp=4 [data=<all that fit>]")
    for name, (kind, help, default) in FLAGS.items():
        parser.add(name, kind, help, default)


class Ending:
    """How this process ends when it is one of several.

    Attributes:
        is_joined: this process has joined others and has not left them yet.
        is_told: the main thread is ending this process, and prints the reason.
    """

    def __init__(self, command: str) -> None:
        self.is_joined = self.is_told = False
        self._command = command
        self._once = threading.Lock()

    def of(self, status: int) -> int:
        """Returns the exit status, or exits now if other processes may no longer answer.

        A normal exit of Python would wait for them.
        """
        if self.is_joined:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        return status

    def lost(self) -> None:
        """Ends this process because another one is lost. JAX calls this in a thread of its own."""
        self._once.acquire()  # a second call waits here, until the process ends
        time.sleep(0.5)  # the main thread may have noticed the loss too, and know more
        if self.is_told:
            time.sleep(5)  # it ends the process itself, and prints the reason
        else:
            print(f"{name_of(self._command)}: error: {LOST}", file=sys.stderr, flush=True)
        os._exit(1)


@contextlib.contextmanager
def taking_part(argv: list[str], command: str, ending: Ending) -> Iterator[Peers]:
    """Joins the processes of the run, if there are several. They leave together at the end.

    Only process 0 prints, except for errors. A process that fails tells the others, so that they do
    not wait for it. Enter this context before JAX first uses a device.

    Raises:
        InputError: the flags are wrong, or the other processes cannot be reached.
        RunError: another process is lost.
    """
    parser = FlagParser(command, "", add_help=False)
    add_flags(parser)
    given = parser.parse_some(argv)
    heartbeat = given.get("heartbeat_seconds", HEARTBEAT_SECONDS)
    if heartbeat < 1:
        raise InputError(f"--heartbeat-seconds {heartbeat} must be at least 1")
    address, count, index = (
        given.get(name) for name in ("coordinator_address", "num_processes", "process_id")
    )
    peers = join(address, count, index, heartbeat, ending.lost)
    if peers.count == 1:
        yield peers
        return
    ending.is_joined = True
    with contextlib.ExitStack() as stack:
        if not peers.leads:
            silent = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silent))
        try:
            yield peers
            jax.distributed.shutdown()
            ending.is_joined = False
        except BaseException as error:
            ending.is_told = True
            peers.fail()
            if isinstance(error, jax.errors.JaxRuntimeError):  # devices that lost each other
                raise RunError(f"{LOST} ({one_line(error, 200)})") from error
            raise


def parts_of(mesh: str | None, batch_size: int, peers: Peers) -> int:
    """Number of devices that the sequences of a batch are divided over."""
    if mesh is not None:
        rows = MeshShape.parse(mesh).rows
        return rows if batch_size % rows == 0 else 1
    return default_shape(batch_size, jax.device_count(), peers.count).rows


def choose_mesh(mesh: str | None, run_config: RunConfig, peers: Peers = ALONE) -> Mesh | None:
    """The mesh that the user asked for, or the default one; None for one device.

    Raises:
        InputError: the mesh does not fit the devices, the model or the batch.
    """
    sequences, devices = run_config.train.sequences_at_once, jax.device_count()
    if mesh is None:
        shape = default_shape(sequences, devices, peers.count)
    else:
        shape = MeshShape.parse(mesh)
        check_shape(shape, run_config.model, sequences, devices)
    return make_mesh(shape) if shape.devices > 1 else None


def mesh_of_model(mesh: str | None, model_config: GPTConfig) -> Mesh | None:
    """The mesh over which a model is divided for sampling; None for one device.

    Raises:
        InputError: the mesh does not fit the devices or the model.
    """
    if mesh is None:
        return None
    shape = MeshShape.parse(mesh)
    check_shape(shape, model_config, 0, jax.device_count())  # 0: no batch is divided
    return make_mesh(shape) if shape.devices > 1 else None


def describe_mesh(mesh: Mesh | None, run_config: RunConfig) -> str:
    """Describes how a run uses its devices."""
    devices = jax.device_count()
    used = mesh.size if mesh else 1
    line = f"mesh: {MeshShape(**mesh.shape) if mesh else MeshShape()}"
    if used < devices:
        line += (
            f": {used} of {devices} devices, because {devices} does not divide the "
            f"{run_config.train.sequences_at_once} sequences computed at once"
        )
    return line
