"""The JAX settings that results depend on, as they were when docs/results.md was measured."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def own_numerics() -> Iterator[None]:
    """Runs the block, or as a decorator a function, with JAX's default settings for numbers.

    A program that uses float64 elsewhere (`jax_enable_x64`) then gets the same batches, updates,
    losses and text as any other. It may be entered while a function is being traced.
    """
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield
