"""Scanned blocks: one block is compiled, and run once for each layer. So 48 layers compile as fast
as 6.

In memory, the blocks of a scanned model are one tree, `blocks`, whose arrays have a leading axis of
layers: (L, ...). The optimizer's moments have it too. On disk, there are `block_0`, `block_1` and
so on, as in an unscanned model. `stack` and `unstack` convert between the two forms.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from gptjax.backends.sharding import shardings
from gptjax.config import RunConfig
from gptjax.model import GPT, Block

Array = jax.Array
BLOCK = re.compile(r"block_\d+$")


def scan_blocks(model: GPT, blocks: Any, x_BTC: Array, dropout_key: Array | None) -> Array:
    """Runs all blocks of a model, for `Execution.blocks`.

    Args:
        blocks: the blocks' parameters, with a leading axis of layers.
        dropout_key: block i gets the key `fold_in(dropout_key, i)`, as in an unscanned model.
    """
    execution = model.execution
    block = Block(model.config, execution, parent=None)

    def one(x_BTC: Array, layer: Any) -> tuple[Array, None]:
        params, key = layer
        params = execution.gather(params) if execution.gather else params
        return execution.pin(block.apply({"params": params}, x_BTC, key)), None  # type: ignore[arg-type]

    if execution.remat:
        one = jax.checkpoint(one, prevent_cse=False)
    keys_L = None
    if dropout_key is not None:
        numbers = jnp.arange(model.config.n_layer)
        keys_L = jax.vmap(partial(jax.random.fold_in, dropout_key))(numbers)
    return jax.lax.scan(one, x_BTC, (blocks, keys_L))[0]


def stack(tree: Any) -> Any:
    """Converts parameters, or a training state, from the form on disk to the scanned form."""

    def translate(node: Any) -> Any:
        if not _has_blocks(node):
            return node
        names = [name for name in node if BLOCK.match(name)]
        rest = {name: node[name] for name in node if name not in names}
        blocks = [node[f"block_{i}"] for i in range(len(names))]
        return rest | {"blocks": jax.tree.map(lambda *layers: _join(layers), *blocks)}

    return jax.tree.map(translate, tree, is_leaf=_has_blocks)


def unstack(tree: Any, n_layer: int) -> Any:
    """The inverse of `stack`."""

    def is_stacked(node: Any) -> bool:
        return isinstance(node, dict) and "blocks" in node

    def translate(node: Any) -> Any:
        if not is_stacked(node):
            return node
        leaves, structure = jax.tree.flatten(node["blocks"])
        layers = [_split(leaf) for leaf in leaves]
        blocks = {
            f"block_{i}": structure.unflatten([layer[i] for layer in layers])
            for i in range(n_layer)
        }
        return {name: node[name] for name in node if name != "blocks"} | blocks

    return jax.tree.map(translate, tree, is_leaf=is_stacked)


def in_memory(run_config: RunConfig, mesh: Mesh | None) -> Callable[[Any], Any]:
    """Returns a function that converts a state or parameters from the form on disk to the run's."""
    if not run_config.scans_layers:
        return lambda tree: tree

    def translate(tree: Any) -> Any:
        stacked = stack(tree)
        return stacked if mesh is None else jax.device_put(stacked, shardings(mesh, stacked))

    return translate


def on_disk(run_config: RunConfig) -> Callable[[Any], Any]:
    """The inverse of `in_memory`. It copies, so its argument stays unchanged."""
    if not run_config.scans_layers:
        return lambda tree: tree
    return partial(unstack, n_layer=run_config.model.n_layer)


@jax.jit
def _join(layers: tuple[Array, ...]) -> Array:
    return jnp.stack(layers)


@jax.jit
def _split(leaf: Array) -> list[Array]:
    """Splits off all layers in one program, because slicing 48 blocks one by one is slow."""
    return list(leaf)


def _has_blocks(node: Any) -> bool:
    return isinstance(node, dict) and "block_0" in node
