"""Attention and products that train faster on a CPU. execution.py injects them into the model.

Elementwise functions: when a product needs the result of an elementwise function transposed, XLA's
CPU backend computes the function again, very slowly, inside each transposed copy. The optimization
barriers here make XLA compute it once.

Projections: `nn.vmap` turns the projections of H heads into a batch of H products with narrow
matrices. The gradient of their common input is then a sum over this batch, which XLA's CPU backend
computes at a thirtieth of the speed of one product over heads and channels together. So this module
writes the gradient as that one product: a Dense layer calls `projection`, which calls `_one_head`;
under `nn.vmap`, JAX replaces it by `_all_heads`, which calls `project_all`, whose gradient is ours.

Attention: half of a causal model's attention weights are zero. If the queries are processed in four
parts, each part needs only the keys that its queries may see, which saves three eighths of the
work.

docs/performance.md has the measurements.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from gptjax.model import attention_weights, weighted_values

Array = jax.Array

# Attention is computed in parts of at least QUERIES queries, and in at most PARTS parts.
QUERIES, PARTS = 64, 4


def attention(q_BTD: Array, k_BTD: Array, v_BTD: Array, drop: Callable[..., Array]) -> Array:
    """The model's attention, one part of the queries at a time: (B, T, D)."""
    T = q_BTD.shape[1]
    size = max(QUERIES, -(-T // PARTS))

    def part(begin: int, end: int) -> Array:
        weights_BTS = drop(attention_weights(q_BTD[:, begin:end], k_BTD[:, :end]), begin)
        return weighted_values(weights_BTS, v_BTD[:, :end])

    parts = [part(begin, min(begin + size, T)) for begin in range(0, T, size)]
    return jnp.concatenate(parts, axis=1)


@jax.custom_vjp
def project_all(x_BTC: Array, w_HCD: Array) -> Array:
    """The projections of all heads, (H, B, T, D)."""
    return jnp.einsum("btc,hcd->hbtd", x_BTC, w_HCD)


def _project_all_forward(x_BTC: Array, w_HCD: Array) -> tuple[Array, tuple[Array, Array]]:
    return project_all(x_BTC, w_HCD), (x_BTC, w_HCD)


def _project_all_backward(kept: tuple[Array, Array], g_HBTD: Array) -> tuple[Array, Array]:
    x_BTC, w_HCD = kept
    # Compute g once, and not again inside each of the two products.
    g_HBTD = jax.lax.optimization_barrier(g_HBTD)
    return (
        jnp.einsum("hbtd,hcd->btc", g_HBTD, w_HCD),
        jnp.einsum("btc,hbtd->hcd", x_BTC, g_HBTD),
    )


project_all.defvjp(_project_all_forward, _project_all_backward)


@custom_vmap
def _one_head(x_BTC: Array, w_CD: Array) -> Array:
    return jnp.einsum("btc,cd->btd", x_BTC, w_CD)


@_one_head.def_vmap
def _all_heads(size: int, batched: list[bool], x: Array, w: Array) -> tuple[Array, bool]:
    """The rule for `nn.vmap` over heads: all heads share x."""
    assert batched == [False, True], batched
    return project_all(x, w), True


def projection(x_BTC: Array, w_CD: Array, dimensions: Any, **_: Any) -> Array:
    """A head's projection, for `nn.Dense(dot_general=...)`; under `nn.vmap`, all heads' at once."""
    return _one_head(x_BTC, w_CD)


@jax.custom_vjp
def _product(x_NC: Array, w_CF: Array) -> Array:
    return x_NC @ w_CF


def _product_forward(x_NC: Array, w_CF: Array) -> tuple[Array, tuple[Array, Array]]:
    x_NC = jax.lax.optimization_barrier(x_NC)
    return _product(x_NC, w_CF), (x_NC, w_CF)


def _product_backward(kept: tuple[Array, Array], g_NF: Array) -> tuple[Array, Array]:
    x_NC, w_CF = kept
    g_NF = jax.lax.optimization_barrier(g_NF)
    return jnp.einsum("nf,cf->nc", g_NF, w_CF), jnp.einsum("nc,nf->cf", x_NC, g_NF)


_product.defvjp(_product_forward, _product_backward)


def product(x_BTC: Array, w_CF: Array, dimensions: Any, **_: Any) -> Array:
    """A dense layer's product, for `nn.Dense(dot_general=...)`.

    Reshapes x to rows first. With two leading axes, the weight's gradient would make a transposed
    copy of x, which is very slow.
    """
    y_NF = _product(x_BTC.reshape(-1, x_BTC.shape[-1]), w_CF)
    return y_NF.reshape(*x_BTC.shape[:-1], -1)
