"""Muon: momentum whose matrices are made orthogonal before they become an update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

# Of Muon's iterations: how many, and the coefficients of x, of its third and of its fifth power.
ITERATIONS = 4
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def muon(momentum: float) -> optax.GradientTransformation:
    """Momentum whose singular values are made one, or nearly (Jordan et al., "Muon", 2024).

    The update of a matrix is as large as Adam's usually is, an RMS of 0.2 (Liu et al., "Muon is
    scalable for LLM training", 2025, section 2.2), so that one learning rate suits both. The
    projections of all heads are one matrix, C to H x D.

    Matrices of one shape, or its transpose, are taken in one stack: less to compile, and fewer and
    larger products. Optax's Muon keeps the momentum; the iterations are `orthogonal`'s.
    """

    def axes(stacks: Any) -> Any:
        return dict.fromkeys(stacks, contrib.MuonDimensionNumbers((1,), (2,)))  # (N, rows, columns)

    inner = contrib.scale_by_muon(beta=momentum, ns_steps=0, weight_dimension_numbers=axes)

    def init(params: Any) -> Any:
        return inner.init(_stacks(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        means: Any
        means, state = inner.update(_stacks(updates), state)
        scaled = {name: 0.2 * x.shape[2] ** 0.5 * orthogonal(x) for name, x in means.items()}
        return _unstack(scaled, updates), state

    return optax.GradientTransformation(init, update)


def orthogonal(x_NRC: jax.Array) -> jax.Array:
    """The matrices with their singular values made one, or nearly, by Newton-Schulz iterations.

    An iteration is x to a x + b (x x') x + c (x x')^2 x, with Jordan's coefficients; four bring
    what is above a fiftieth to between 0.7 and 1.2. The first x is divided by its Schatten-4 norm,
    a by-product here: closer to the largest singular value than the Frobenius norm, it leaves less
    to do (Optax has it as `preconditioning="schatten"`).

    Every iterate is a polynomial of x x', times x. Where that is much the smaller matrix, the
    iterations are on the polynomial: R by R, and x is met at the beginning and at the end alone.

    Args:
        x_NRC: float32, no matrix higher than it is wide.
    """

    def times(a: jax.Array, b: jax.Array) -> jax.Array:
        # Rounding gives x x' eigenvalues below 0, which iterations enlarge: little in float32, but
        # far too much in what an accelerator makes of float32 by default.
        return jnp.matmul(a, b, precision="highest")

    def squared(x_NRC: jax.Array) -> jax.Array:
        return times(x_NRC, x_NRC.swapaxes(1, 2))

    def factor(square: jax.Array) -> jax.Array:
        a, b, c = COEFFICIENTS
        one = jnp.eye(square.shape[-1])[None]
        return a * one + b * square + c * times(square, square)

    square = squared(x_NRC)
    norm = jnp.linalg.norm(square, axis=(1, 2), keepdims=True) + 1e-30
    square, x_NRC = square / norm, x_NRC / jnp.sqrt(norm)
    wide = x_NRC.shape[2] >= 2 * x_NRC.shape[1]
    step = factor(square)
    y = step if wide else times(step, x_NRC)
    for _ in range(ITERATIONS - 1):
        square = times(times(step, square), step) if wide else squared(y)
        step = factor(square)
        y = times(step, y)
    return times(y, x_NRC) if wide else y


def _stacks(tree: Any) -> dict[str, jax.Array]:
    """The matrices of a tree by their shape, none higher than it is wide: (N, rows, columns).

    In a GPT of two blocks whose width is 64, all queries, keys, values and projections are one
    stack, "64x64", of 8 matrices; the feed-forward's, one of them transposed, are another,
    "64x256", of 4. The stacks are the same whether or not the blocks are scanned.
    """
    found: dict[str, list[jax.Array]] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        matrices_LRC = jax.vmap(_as_matrix)(_with_layers(path, x))
        found.setdefault(_name(matrices_LRC.shape[1:]), []).append(matrices_LRC)
    stacks = {}
    for name, parts in found.items():
        each_LNRC = jnp.stack(parts, axis=1)
        stacks[name] = each_LNRC[_order(len(each_LNRC))].reshape(-1, *each_LNRC.shape[2:])
    return stacks


def _unstack(stacks: dict[str, jax.Array], like: Any) -> Any:
    """The inverse of `_stacks`, for a tree of these shapes."""
    left: dict[str, Any] = {}

    def take(path: Any, x: jax.Array) -> jax.Array:
        layers = _with_layers(path, x)
        as_matrices = jax.vmap(_as_matrix)
        L, *shape = jax.eval_shape(as_matrices, layers).shape
        name = _name(tuple(shape))
        if name not in left:
            each_LNRC = stacks[name].reshape(L, -1, *shape)[np.argsort(_order(L))]
            # `_stacks` visited the leaves in this order, so each leaf's matrices are the next.
            left[name] = iter(each_LNRC.swapaxes(0, 1))
        # `_as_matrix` only reorders axes, so its linear transpose is its inverse.
        back = jax.linear_transpose(as_matrices, layers)
        return back(next(left[name]))[0].reshape(x.shape)

    return jax.tree_util.tree_map_with_path(take, like)


def _with_layers(path: Any, x: jax.Array) -> jax.Array:
    """The array of a scanned model's blocks, which has an axis of layers; else one of length 1."""
    return x if path[0].key == "blocks" else x[None]


def _order(n_layer: int) -> np.ndarray:
    """The order of blocks in a tree on disk: block_10 comes before block_2."""
    return np.array(sorted(range(n_layer), key=str))


def _name(shape: tuple[int, ...]) -> str:
    """What the stack of matrices of this shape is called."""
    return "x".join(map(str, shape))


def _as_matrix(x: jax.Array) -> jax.Array:
    """(C, H x D) of (H, C, D); transposed, if it is higher than wide."""
    if x.ndim == 3:
        x = x.swapaxes(0, 1).reshape(x.shape[1], -1)
    return x if x.shape[0] <= x.shape[1] else x.T
