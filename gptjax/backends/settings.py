"""While a script runs, gives our values to the JAX settings that could change or stop the run.

Users set them in the environment (JAX_ENABLE_X64=1) or in a program (`jax.config.update`).
"""

import contextlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from gptjax.errors import InputError, one_line

# JAX's defaults, with which every loss in docs/results.md was measured. A setting that the
# installed release lacks is skipped.
OURS = {
    # Dtypes.
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    # Random numbers: parameters, batches, dropout, samples.
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    # Rounding of sums and products.
    "jax_default_matmul_precision": None,
    "jax_disable_jit": False,
    # Checks that would stop the program, although we check ourselves or move arrays on purpose.
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_check_tracer_leaks": False,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_device": None,
    "jax_transfer_guard_device_to_host": None,
    "jax_no_tracing": False,
    "jax_no_execution": False,
}
# How long the child process may take. Starting JAX on a CPU takes 2 s.
SECONDS = 20


@contextlib.contextmanager
def own_settings(tell: Callable[[str], None]) -> Iterator[None]:
    """Applies `OURS` in all threads while the block runs, then restores the old settings.

    Args:
        tell: receives a line for each setting that is overridden.

    Raises:
        InputError: a `with` block in this thread changed a setting; only leaving it can undo that.
    """
    # A new thread sees the process's settings, not those of a `with jax.enable_x64():` around us.
    with ThreadPoolExecutor(1) as another:
        theirs = another.submit(_differing).result()
    for name, value in _differing().items():
        if name not in theirs:
            raise InputError(
                f"{name} is {value} in this thread, but a run needs {OURS[name]}: leave the "
                "`with` block that sets it"
            )
    try:
        for name, value in theirs.items():
            tell(f"{name}={value} is ignored: {OURS[name]} gives the same results on every machine")
            jax.config.update(name, OURS[name])
        yield
    finally:
        for name, value in theirs.items():
            jax.config.update(name, value)


def _differing() -> dict[str, Any]:
    """The settings of this thread that differ from `OURS`."""
    here = {name: getattr(value, "value", value) for name, value in jax.config.values.items()}
    return {name: here[name] for name, ours in OURS.items() if here.get(name, ours) != ours}


def check_xla_flags() -> None:
    """Tries XLA_FLAGS in a child process, because XLA aborts on a flag that it does not know.

    Call this before JAX first uses a device.

    Raises:
        InputError: XLA cannot start with these flags.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not flags or not hasattr(os, "fork"):
        return
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no thread runs yet, and the child only starts JAX
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(SECONDS)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            jax.config.update("jax_platforms", "cpu")  # it starts fast, and knows all flags
            jax.devices()
        finally:
            os._exit(0)  # the parent will report any other error itself
    os.close(writer)
    with open(reader, errors="replace") as told:
        said = told.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGALRM):
        why = next((line for line in said.splitlines() if "XLA_FLAGS" in line), said)
        why = why.split("] ")[-1]  # without the date and the source line in XLA
        raise InputError(f"XLA_FLAGS ({flags}): XLA rejects them ({one_line(why, 200)})")
