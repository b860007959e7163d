"""The sharding of each array of a run on a mesh of devices (mesh.py).

This module computes nothing: JAX's compiler partitions the program by the shardings of its arrays,
and adds the communication. A mesh of None means one device.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax.backends.mesh import MeshShape
from gptjax.model import GPT, Execution
from gptjax.training import ONE_DEVICE, Placement

Array = jax.Array
# The sequences of a batch are divided over both axes.
ROWS = ("data", "fsdp")

# The mesh axes along which a parameter is divided, by the end of its path. The paths of the
# optimizer's moments end like those of their parameters. Arrays without a rule (biases of width C,
# LayerNorm, counters) are small, and every device holds them whole.
RULES: tuple[tuple[str, P], ...] = (
    ("wte/embedding", P(None, "fsdp")),  # (V, C)
    ("wpe/embedding", P(None, "fsdp")),  # (T, C)
    ("heads/(query|key|value)/kernel", P("tensor", "fsdp", None)),  # (H, C, D)
    ("heads/(query|key|value)/bias", P("tensor", None)),  # (H, D)
    ("attn/proj/kernel", P("tensor", "fsdp")),  # (H x D, C)
    ("mlp/fc/kernel", P("fsdp", "tensor")),  # (C, 4C)
    ("mlp/fc/bias", P("tensor")),  # (4C,)
    ("mlp/proj/kernel", P("tensor", "fsdp")),  # (4C, C)
    ("lm_head/kernel", P("fsdp", None)),  # (C, V)
)
# Muon's momentum: stacks of matrices of the same shape, (N, rows, columns); see muon.py.
STACK = re.compile(r"(^|/)\d+x\d+$")
# Parameters of scanned blocks, which have a leading axis of layers; see scanned.py.
SCANNED = re.compile(r"(^|/)blocks/")


def make_mesh(shape: MeshShape, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes a mesh of this shape.

    Args:
        devices: at least as many as the shape has; None takes JAX's devices, equally many from each
            process.
    """
    if devices is None:
        each = shape.devices // jax.process_count()
        by_process = [jax.local_devices(p)[:each] for p in range(jax.process_count())]
        devices = [device for part in by_process for device in part]
    array = np.asarray(devices[: shape.devices]).reshape(shape)
    return Mesh(array, MeshShape._fields)


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The axes of the mesh that divide each axis of an array.

    Args:
        path: names from the root of the state, joined by `/`.
        shape: the array's shape.
    """
    if STACK.search(path):
        # Divide the matrices among the devices or, if their number is no multiple, their rows.
        whole_matrices = shape[0] % mesh.shape["fsdp"] == 0
        spec = P("fsdp", None, None) if whole_matrices else P(None, "fsdp", None)
    else:
        found = (spec for end, spec in RULES if re.search(f"(^|/){end}$", path))
        spec = next(found, P())
    if SCANNED.search(path):
        spec = P(None, *spec)  # each device has its part of every layer
    # An array axis whose size the mesh axis does not divide stays whole.
    axes = zip(spec, shape, strict=False)
    return P(*(axis if _divides(mesh, axis, size) else None for axis, size in axes))


def gathered(spec: P) -> P:
    """A spec without `fsdp`: how a parameter is divided while it is used."""
    return P(*(None if axis == "fsdp" else axis for axis in spec))


def shardings(mesh: Mesh, tree: Any) -> Any:
    """The shardings, by the rules, of a TrainState, of parameters, or of a block's parameters."""

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec_of(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def target(mesh: Mesh | None, tree: Any) -> Any:
    """Adds shardings to a tree of shapes and dtypes from `jax.eval_shape`."""
    if mesh is None:
        return tree
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        tree,
        shardings(mesh, tree),
    )


def place(mesh: Mesh | None, tree: Any) -> Any:
    """Places a tree of this process's arrays by `shardings`."""
    return tree if mesh is None else jax.device_put(tree, shardings(mesh, tree))


def everywhere(mesh: Mesh | None, tree: Any) -> Any:
    """Copies a tree of arrays and keys, which each process has, to every device of the mesh."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    where = replicated(mesh)

    def put(x: Any) -> Array:
        if isinstance(x, Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        here = np.asarray(x)
        return jax.make_array_from_callback(here.shape, where, lambda i: here[i])

    return jax.tree.map(put, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, P())


def placement(mesh: Mesh | None) -> Placement:
    """The sharding constraints on a train step's batch and state."""
    if mesh is None:
        return ONE_DEVICE

    def rows(batch: Any) -> Any:
        return jax.tree.map(partial(_pin, mesh), batch)

    def state(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, shardings(mesh, tree))

    return Placement(rows, state, mesh.shape["data"] * mesh.shape["fsdp"])


def spread(model: nn.Module, mesh: Mesh | None) -> nn.Module:
    """Sets a GPT's execution hooks for the mesh; returns a rung of the lecture unchanged."""
    if mesh is None or not isinstance(model, GPT):
        return model
    return model.clone(execution=on_mesh(model.execution, mesh))


def on_mesh(execution: Execution, mesh: Mesh) -> Execution:
    """Returns the execution with its hooks set for the mesh.

    Without these constraints, XLA sums activations over the devices of `fsdp` instead of gathering
    weights, which takes several times the memory and the time.
    """

    def gather(block: Any) -> Any:
        def place(path: Any, leaf: Array) -> Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            spec = gathered(spec_of(name, leaf.shape, mesh))
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

        return jax.tree_util.tree_map_with_path(place, block)

    def by_rows(summed: Any) -> Any:
        def add(*arguments: Any) -> Any:
            *sums, dx_BTC = summed(*arguments)
            return *jax.lax.psum(sums, ROWS), dx_BTC

        rows, whole = P(ROWS), P()
        return jax.shard_map(
            add,
            mesh=mesh,
            in_specs=(rows, whole, whole, rows, rows),
            out_specs=(whole, whole, whole, rows),
            check_vma=False,
        )

    return execution._replace(pin=partial(_pin, mesh), gather=gather, by_rows=by_rows)


def _pin(mesh: Mesh, x: Array) -> Array:
    """Divides the array's first axis over the devices, and no other axis."""
    spec = P(ROWS, *(None,) * (x.ndim - 1))
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def _divides(mesh: Mesh, axis: str | None, size: int) -> bool:
    return axis is None or size % mesh.shape[axis] == 0
