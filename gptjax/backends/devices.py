"""JAX's devices: which there are, and the settings that must be made before JAX looks for them."""

import os
import warnings
from pathlib import Path
from typing import Any

import jax

from gptjax.errors import InputError, one_line

DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"


def make_deterministic() -> None:
    """Asks XLA for deterministic GPU kernels. Only before JAX's first use of a device.

    Other backends are deterministic as they are.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC_FLAG}".strip()


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: JAX's choice, which JAX_PLATFORMS overrides.

    Raises:
        InputError: JAX_PLATFORMS names a platform that is not there.
    """
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # an assertion where the plugin is missing
        asked = os.environ.get("JAX_PLATFORMS")
        if asked is None:
            raise
        reason = one_line(error, 200, "its plugin is not installed")
        raise InputError(
            f"JAX_PLATFORMS ({asked}) names no platform that JAX finds here: {reason}"
        ) from error


def describe() -> str:
    """Platform, device kind and count, for a person."""
    devices = jax.devices()
    return f"{platform()}: {len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"


def use_compilation_cache() -> None:
    """Keeps compiled programs on the disk, so that the next start need not compile.

    In $XDG_CACHE_HOME/gptjax, or ~/.cache/gptjax. JAX's own settings come first:
    JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false turns it off.
    A folder that cannot be written costs only the time. For scripts: it is the process's setting.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptjax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: neither HOME nor an entry in passwd
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    show = warnings.showwarning

    def heal(message: Any, *args: Any, **kwargs: Any) -> None:
        """JAX writes entries in place, and never again: one that a kill or a full disk cut short
        would be reported and compiled again at every start. So all are removed.
        """
        if "persistent compilation cache" not in str(message):
            show(message, *args, **kwargs)
            return
        for entry in folder.glob("*-cache"):
            entry.unlink(missing_ok=True)

    warnings.showwarning = heal
