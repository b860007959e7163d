"""JAX's devices, and the settings that must be made before JAX looks for them."""

import os
import warnings
from pathlib import Path
from typing import Any

import jax

from gptjax.errors import InputError, one_line

DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"


def make_deterministic() -> None:
    """Makes XLA use deterministic GPU kernels. Call this before JAX first uses a device.

    Other backends are always deterministic.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC_FLAG}".strip()


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: JAX's choice, which JAX_PLATFORMS overrides.

    Raises:
        InputError: JAX_PLATFORMS names a platform that this machine does not have.
    """
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # AssertionError: the plugin is missing
        asked = os.environ.get("JAX_PLATFORMS")
        if asked is None:
            raise
        reason = one_line(error, 200, "its plugin is not installed")
        raise InputError(
            f"JAX_PLATFORMS ({asked}) names a platform that JAX does not find here: {reason}"
        ) from error


def describe() -> str:
    """Describes the platform, and the kind and number of devices."""
    devices = jax.devices()
    return f"{platform()}: {len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"


def use_compilation_cache() -> None:
    """Makes JAX cache compiled programs on disk, so that the next start does not compile them.

    The folder is $XDG_CACHE_HOME/gptjax, or ~/.cache/gptjax. JAX's own settings take precedence:
    JAX_COMPILATION_CACHE_DIR names another folder, and JAX_ENABLE_COMPILATION_CACHE=false turns the
    cache off. If the folder cannot be written, programs are compiled each time. Only scripts should
    call this function, because it changes a setting of the process.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptjax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no HOME and no entry in passwd
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    show = warnings.showwarning

    def heal(message: Any, *args: Any, **kwargs: Any) -> None:
        """Removes all entries when JAX warns about a damaged one.

        JAX never rewrites an entry. If a kill or a full disk truncated one, JAX would warn and
        compile again at every start.
        """
        if "persistent compilation cache" not in str(message):
            show(message, *args, **kwargs)
            return
        for entry in folder.glob("*-cache"):
            entry.unlink(missing_ok=True)

    warnings.showwarning = heal
