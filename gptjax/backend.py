"""JAX's devices: which there are, and the settings that must be made before JAX looks for them."""

import os

import jax

from gptjax.errors import InputError

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
        reason = " ".join(str(error).split())[:200] or "its plugin is not installed"
        raise InputError(
            f"JAX_PLATFORMS ({asked}) names no platform that JAX finds here: {reason}"
        ) from error


def describe() -> str:
    """Platform, device kind and count, for a person."""
    devices = jax.devices()
    return f"{platform()}: {len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"
