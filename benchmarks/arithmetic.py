"""Measures how many operations per second a machine does."""

import time

import jax
import jax.numpy as jnp
import numpy as np


def matmul_rate(dtype: str, size: int = 2048, seconds: float = 1.0, turns: int = 5) -> float:
    """Operations per second of JAX's product of two square matrices, the best of several turns."""
    key = jax.random.key(0)
    a = jax.random.normal(key, (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    best = 0.0
    for _ in range(turns):
        product(a, a).block_until_ready()
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / turns:
            # Several in flight, so that a fast device does not wait for the host.
            np.asarray([product(a, a) for _ in range(4)][-1][0, 0])
            count += 4
        best = max(best, count * 2 * size**3 / (time.perf_counter() - began))
    return best
