"""Several processes that train one model, on one machine or many.

Each process has its own devices, clock and signals. Decisions that must be the same in all of them
(the step to stop at, whether to save) go through `Peers.agree`. Process 0 runs JAX's coordination
service, which carries the answers and detects lost processes by their heartbeats.
"""

import contextlib
import ctypes
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from gptjax.errors import InputError, RunError, one_line

# How long `agree` waits for a process that compiles, or writes to a slow disk. A process that has
# died is detected sooner, by its missing heartbeats.
AGREE_SECONDS = 600.0
# How long a process waits for the others to join.
JOIN_SECONDS = 300
# How often a waiting process checks whether another has failed.
LOOK_SECONDS = 1.0
# The key under which a failing process stores its number.
FAILED = "gptjax/failed"


def first(values: list[Any]) -> Any:
    """The value of process 0."""
    return values[0]


def first_of_any(values: list[Any]) -> Any:
    """The first value that is not None, or None."""
    return next((value for value in values if value is not None), None)


class Peers:
    """The processes of a run. By default there is only this one; `join` returns several.

    Attributes:
        index: this process's number, from 0.
        count: number of processes.
    """

    def __init__(
        self, index: int = 0, count: int = 1, client: Any = None, handler: Any = None
    ) -> None:
        self.index, self.count = index, count
        self._client = client
        self._handler = handler  # C++ calls it, and Python must not free it
        self._asked = 0

    @property
    def leads(self) -> bool:
        """Whether this is process 0, which writes and prints."""
        return self.index == 0

    def agree(self, mine: Any, decide: Callable[[list[Any]], Any] = first) -> Any:
        """A collective decision: every process must call this, and all get the same answer.

        Args:
            mine: this process's value, which JSON must be able to represent.
            decide: computes the answer from all values, in the order of the processes. Only
                process 0 calls it.

        Raises:
            RunError: another process has failed, or did not answer within AGREE_SECONDS.
        """
        if self.count == 1:
            return decide([mine])
        self._asked += 1
        here = f"gptjax/agree/{self._asked}"
        if not self.leads:
            self._client.key_value_set(f"{here}/{self.index}", json.dumps(mine))
            return json.loads(self._wait_for(f"{here}/0", 0))
        others = [json.loads(self._wait_for(f"{here}/{i}", i)) for i in range(1, self.count)]
        answer = decide([mine, *others])
        self._client.key_value_set(f"{here}/0", json.dumps(answer))
        if self._asked > 1:  # every process has read the previous answer by now
            self._client.key_value_delete(f"gptjax/agree/{self._asked - 1}/")
        return answer

    def fail(self) -> None:
        """Tells the other processes that this one fails. Takes a few seconds at most."""
        if self.count == 1:
            return

        def tell() -> None:
            with contextlib.suppress(Exception):
                self._client.key_value_set(FAILED, str(self.index), allow_overwrite=True)

        # In a thread, because it blocks if process 0 is lost.
        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(2 * LOOK_SECONDS)
        if self.leads:  # the service ends with this process, so give the others time to read
            time.sleep(2 * LOOK_SECONDS)

    def _wait_for(self, key: str, process: int) -> str:
        end = time.monotonic() + AGREE_SECONDS
        while time.monotonic() < end:
            try:
                return self._client.blocking_key_value_get(key, int(LOOK_SECONDS * 1000))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise RunError(f"process {process} is lost: {one_line(error, 200)}") from error
            self._look_for_failures()
        raise RunError(f"process {process} did not answer within {AGREE_SECONDS:.0f} s")

    def _look_for_failures(self) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # NOT_FOUND
            index = self._client.key_value_try_get(FAILED)
            raise RunError(f"process {index} failed, and printed the reason")


ALONE = Peers()


def join(
    address: str | None,
    count: int | None,
    index: int | None,
    heartbeat_seconds: int,
    lost: Callable[[], None],
) -> Peers:
    """Joins the processes of a run. Call it before JAX first uses a device.

    Args:
        address: HOST:PORT of process 0. If `address`, `count` and `index` are all None, they come
            from the cluster that JAX recognises (see `jax.distributed.initialize`); without a
            cluster there is only this process.
        heartbeat_seconds: a process that sends no heartbeat for this long counts as lost.
        lost: called in another thread when a process is lost; it must end this process.

    Raises:
        InputError: the flags contradict each other, or the other processes cannot be reached.
    """
    given = [x for x in (address, count, index) if x is not None]
    if jax.distributed.is_initialized():  # by the program that calls this
        raise InputError(
            "this program has already joined other processes: leave that to train.py, or train "
            "with gptjax.training"
        )
    if count == 1 or (not given and _has_devices()):
        return ALONE
    _check(address, count, index)
    # Turn off JAX's handler of SIGTERM, which would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _calling(lost) as handler:
            jax.distributed.initialize(
                address,
                count,
                index,
                initialization_timeout=JOIN_SECONDS,
                heartbeat_timeout_seconds=heartbeat_seconds,
                shutdown_timeout_seconds=60,
            )
    except ValueError as error:
        if given:
            raise InputError(f"--coordinator-address: {one_line(error, 200)}") from error
        return ALONE  # no cluster
    except RuntimeError as error:
        raise InputError(
            f"the {count or 'other'} processes could not be joined at {address or 'their address'} "
            f"within {JOIN_SECONDS} s: {one_line(error, 200)}; --num-processes 1 trains alone"
        ) from error
    from jax._src.distributed import global_state  # no public function returns the client

    return Peers(jax.process_index(), jax.process_count(), global_state.client, handler)


def _check(address: str | None, count: int | None, index: int | None) -> None:
    """Validates the flags.

    Raises:
        InputError: a flag is missing or out of range.
    """
    flags = {"--coordinator-address": address, "--num-processes": count, "--process-id": index}
    missing = [name for name, value in flags.items() if value is None]
    if missing and len(missing) < len(flags):
        raise InputError(
            f"missing {', '.join(missing)}: where JAX recognises no cluster, a run of several "
            "processes needs --coordinator-address, --num-processes and --process-id"
        )
    if address is None or count is None or index is None:
        return
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(
            f"--coordinator-address {address} must be the HOST:PORT of process 0, such as "
            "10.0.0.1:1234"
        )
    if count < 1:
        raise InputError(f"--num-processes {count} must be at least 1")
    if not 0 <= index < count:
        raise InputError(
            f"--process-id {index} must be from 0 to {count - 1}: one less than --num-processes"
        )


def _has_devices() -> bool:
    """Whether JAX has initialized its devices; after that, a process cannot join others."""
    from jax._src import xla_bridge  # JAX has no public function for this

    return xla_bridge.backends_are_initialized()


@contextlib.contextmanager
def _calling(lost: Callable[[], None]) -> Iterator[Any]:
    """Makes JAX's client, created in the block, call `lost` instead of aborting the process.

    `jax.distributed.initialize` has no argument for this, but the constructor of its client has: a
    callback that gets a C++ status. JAX 0.10 to 0.12 cannot convert the status to Python, so the
    call throws a C++ exception in its thread, which calls C++'s terminate handler; ours calls
    `lost`. A later JAX may call the callback itself. Where neither is available, JAX aborts the
    process with a stack trace.

    Yields:
        the handler, which must stay alive as long as the process does.
    """
    from jax._src import lib

    library: Any = lib._jax  # type: ignore[attr-defined]

    make = library.get_distributed_runtime_client

    def make_calling(*args: Any, **kwargs: Any) -> Any:
        return make(*args, missed_heartbeat_callback=lambda *_: lost(), **kwargs)

    handler = ctypes.CFUNCTYPE(None)(lost)
    try:
        name = "libc++abi.dylib" if sys.platform == "darwin" else "libstdc++.so.6"
        set_terminate = ctypes.CDLL(name)._ZSt13set_terminatePFvvE  # std::set_terminate
    except (OSError, AttributeError):
        yield None
        return
    library.get_distributed_runtime_client = make_calling
    try:
        yield handler
    finally:
        library.get_distributed_runtime_client = make
    set_terminate(handler)
