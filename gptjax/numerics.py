"""JAX's settings that numbers depend on, as they were when docs/results.md was measured."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def own_numerics() -> Iterator[None]:
    """The block, or with `@own_numerics()` a function, computes as if a program had set nothing.

    A program that computes in float64 elsewhere (`jax_enable_x64`) has the same batches, updates,
    losses and text as one that does not. May be entered inside of a function that is being traced.
    """
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield
