"""Several processes that train one model, on one machine or many, and how they decide together.

Each process has its own devices, clock and signals. What must be the same in all (the step to stop
at, whether to save) is decided by `Peers.agree`. JAX's coordination service, which process 0 runs,
carries the answers and watches which processes live.
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

# How long `agree` waits for the others: for one that compiles, or that writes to a slow disk. One
# that has died is found sooner, by its heartbeats.
AGREE_SECONDS = 600.0
# How long a process waits for the others to join.
JOIN_SECONDS = 300
# How often a waiting process looks whether another has failed.
LOOK_SECONDS = 1.0
# What a process that fails leaves for the others.
FAILED = "gptjax/failed"


def first(values: list[Any]) -> Any:
    """The value of process 0."""
    return values[0]


def first_of_any(values: list[Any]) -> Any:
    """The first value that is not None; None if all are."""
    return next((value for value in values if value is not None), None)


class Peers:
    """The processes of a run, this one among them. Alone, unless `join` made it.

    Attributes:
        index: this process's number, from 0.
        count: how many there are.
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
        """Decides something together: every process calls this, and gets the same answer.

        Args:
            mine: this process's value, as JSON has it.
            decide: the answer by all values in the order of the processes. Process 0 calls it.

        Raises:
            RunError: another process has failed, or did not answer in AGREE_SECONDS.
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
        if self._asked > 1:  # everyone has read the answer before, or would not have come here
            self._client.key_value_delete(f"gptjax/agree/{self._asked - 1}/")
        return answer

    def fail(self) -> None:
        """Tells the others that this process fails, if it still can. Takes seconds at most."""
        if self.count == 1:
            return

        def tell() -> None:
            with contextlib.suppress(Exception):
                self._client.key_value_set(FAILED, str(self.index), allow_overwrite=True)

        # In a thread, because it waits where process 0 is lost.
        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(2 * LOOK_SECONDS)
        if self.leads:  # the service ends with this process: let the others read it first
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
            raise RunError(f"process {index} failed, and says why")


ALONE = Peers()


def join(
    address: str | None,
    count: int | None,
    index: int | None,
    heartbeat_seconds: int,
    lost: Callable[[], None],
) -> Peers:
    """Joins the processes of a run. Only before JAX's first use of a device.

    Args:
        address: HOST:PORT of process 0. None, as `count` and `index`: as the cluster says that JAX
            recognises, see `jax.distributed.initialize`; alone where it recognises none.
        heartbeat_seconds: after how long without a sign of life a process counts as lost.
        lost: called in another thread when a process is lost; it must end this process.

    Raises:
        InputError: the flags contradict each other, or the others cannot be reached.
    """
    given = [x for x in (address, count, index) if x is not None]
    if jax.distributed.is_initialized():  # by the program that calls this
        raise InputError(
            "this program has joined other processes already: leave that to train.py, or train "
            "with gptjax.training"
        )
    if count == 1 or (not given and _has_devices()):
        return ALONE
    _check(address, count, index)
    # JAX's own handler of SIGTERM would keep ours from being called.
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
    from jax._src.distributed import global_state  # its client has no public name

    return Peers(jax.process_index(), jax.process_count(), global_state.client, handler)


def _check(address: str | None, count: int | None, index: int | None) -> None:
    """Validates the flags.

    Raises:
        InputError: one is missing or out of its range.
    """
    flags = {"--coordinator-address": address, "--num-processes": count, "--process-id": index}
    missing = [name for name, value in flags.items() if value is None]
    if missing and len(missing) < len(flags):
        raise InputError(
            f"{', '.join(missing)}: missing; where JAX recognises no cluster, a run of several "
            "processes needs --coordinator-address, --num-processes and --process-id"
        )
    if address is None or count is None or index is None:
        return
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(
            f"--coordinator-address {address} must be HOST:PORT, such as 10.0.0.1:1234: where "
            "process 0 can be reached"
        )
    if count < 1:
        raise InputError(f"--num-processes {count} must be at least 1")
    if not 0 <= index < count:
        raise InputError(
            f"--process-id {index} must be from 0 to {count - 1}: one less than --num-processes"
        )


def _has_devices() -> bool:
    """Whether this process has used its devices already: then it cannot join others."""
    from jax._src import xla_bridge  # has no public name

    return xla_bridge.backends_are_initialized()


@contextlib.contextmanager
def _calling(lost: Callable[[], None]) -> Iterator[Any]:
    """Has JAX's client, made in the block, call `lost` where it would abort the process.

    `jax.distributed.initialize` has no argument for it, but the client that it makes has: a
    function, to which C++ passes a status. JAX 0.10 to 0.12 cannot turn a status into a Python
    object, so the call becomes an exception in a thread of C++, and that calls C++'s terminate
    handler, which can be ours. A later JAX may call the function itself. Where nothing of this can
    be had, JAX aborts the process, with a stack trace.

    Yields:
        what must live as long as the process.
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
