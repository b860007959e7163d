"""The mathematical trick in self-attention: four ways to average the past.

Each function takes x_BTC and returns, for every position, the mean of this and all earlier
positions. The first three give equal results. In the last, the tokens decide how much each counts;
if the queries are zero, it is the plain average again.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.layers import attention_weights, causal_mask

Array = jax.Array


def average_loop(x_BTC: Array) -> Array:
    """Version 1, the loop: for each sequence and each position, the mean so far."""
    return jnp.stack(
        [jnp.stack([x_TC[: t + 1].mean(axis=0) for t in range(len(x_TC))]) for x_TC in x_BTC]
    )


def triangular_weights(T: int) -> Array:
    """A lower triangle of ones, each row divided by its sum: (T, T)."""
    triangle_TT = jnp.tril(jnp.ones((T, T)))
    return triangle_TT / triangle_TT.sum(axis=1, keepdims=True)


def average_matrix(x_BTC: Array) -> Array:
    """Version 2: averages are weighted sums, and one matrix product computes all of them."""
    return triangular_weights(x_BTC.shape[1]) @ x_BTC


def softmax_weights(T: int) -> Array:
    """Softmax over each row of zero affinities, with the future at minus infinity: (T, T)."""
    return nn.softmax(jnp.where(causal_mask(T), jnp.zeros((T, T)), -jnp.inf), axis=-1)


def average_softmax(x_BTC: Array) -> Array:
    """Version 3: the same weights, but from affinities, which can be other than zero."""
    return softmax_weights(x_BTC.shape[1]) @ x_BTC


def average_by_affinity(
    x_BTC: Array, query_CD: Array, key_CD: Array, value_CD: Array
) -> tuple[Array, Array]:
    """Version 4, self-attention: queries are compared with keys to weight the values.

    Args:
        query_CD: projects to what each token looks for.
        key_CD: projects to what each token contains.
        value_CD: projects to what each token passes on to the tokens that look at it.

    Returns:
        The weighted averages of the values, (B, T, D), and the weights, (B, T, T).
    """
    weights_BTT = attention_weights(x_BTC @ query_CD, x_BTC @ key_CD)
    return weights_BTT @ (x_BTC @ value_CD), weights_BTT
