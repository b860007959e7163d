"""Finds what a run needs without running it: operations, bytes per device, communication.

This allocates no arrays: it lowers programs for shapes and dtypes, and compiles them for the CPU,
with simulated devices if there are several.
"""

import math
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from gptjax.backends import sharding
from gptjax.backends.collectives import collectives
from gptjax.backends.execution import suited
from gptjax.config import RunConfig
from gptjax.loss import cross_entropy
from gptjax.model import GPT, forward
from gptjax.optimizer import trained_mask
from gptjax.training import init_params, init_state, make_keys, make_train_loop

FAST = {"xla_backend_optimization_level": 0}  # compiles faster, with the same arrays and operations


class StateBytes(NamedTuple):
    """Bytes on one device: the state that a run keeps between updates, and its gradients."""

    params: int
    moments: int
    gradients: int


def state_bytes(run_config: RunConfig, mesh: Mesh | None) -> StateBytes:
    """Bytes on one device. `moments` is the whole optimizer state."""
    state = _abstract_state(run_config, mesh)
    mask = trained_mask(state.params, run_config.train.trainable)
    trained = jax.tree.map(lambda x, is_trained: x if is_trained else None, state.params, mask)
    return StateBytes(_held(state.params), _held(state.opt_state), _held(trained))


def activation_bytes(run_config: RunConfig, rows: int, *, has_weights: bool) -> int:
    """Bytes on one device of the activations that the backward pass needs, by formula.

    A block keeps 16 C numbers per token. With `remat`, each block keeps C, and one block at a time
    has its 16 C.

    Args:
        rows: number of devices that the sequences are divided over.
        has_weights: the attention weights are kept too, H T float32 numbers per token. A flash
            kernel does not keep them.
    """
    cfg, train = run_config.model, run_config.train
    tokens = train.sequences_at_once // rows * cfg.block_size
    itemsize = jnp.dtype(cfg.dtype).itemsize
    block = 16 * cfg.n_embd * itemsize + has_weights * cfg.n_head * cfg.block_size * 4
    kept = cfg.n_embd * itemsize
    return tokens * (cfg.n_layer * kept + block if train.remat else cfg.n_layer * block)


def gathered_bytes(run_config: RunConfig, mesh: Mesh | None) -> int:
    """Bytes on one device of the weights that are gathered over `fsdp`, by formula.

    The backward pass needs them again, in the dtype of the products. With `remat`, it gathers one
    block's at a time.
    """
    if mesh is None or mesh.shape["fsdp"] == 1:
        return 0
    params, counts = _abstract_state(run_config, mesh).params, Counter[bool]()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec, name = leaf.sharding.spec, jax.tree_util.keystr(path, simple=True, separator="/")
        if sharding.gathered(spec) != spec:
            whole = NamedSharding(mesh, sharding.gathered(spec)).shard_shape(leaf.shape)
            counts[name.startswith("block")] += math.prod(whole)
    blocks = counts[True] // (run_config.model.n_layer if run_config.train.remat else 1)
    return (counts[False] + blocks) * jnp.dtype(run_config.model.dtype).itemsize


def xla_flops(run_config: RunConfig) -> float:
    """Operations of forward and backward for one token, as XLA counts them.

    XLA counts models of one and two blocks, unrolled and without recomputation. Each further block
    costs as much as the second.
    """

    def count(n_layer: int) -> float:
        cfg = run_config.replace(n_layer=n_layer, dtype="float32", dropout=0.0).model
        params = jax.eval_shape(partial(init_params, GPT(cfg)), jax.random.key(0))
        x_BT = jax.ShapeDtypeStruct((1, cfg.block_size), jnp.int32)

        def loss(params: Any, x_BT: Any) -> Any:
            return cross_entropy(forward(GPT(cfg), params, x_BT), x_BT)

        analysis: Any = jax.jit(jax.value_and_grad(loss)).lower(params, x_BT).cost_analysis()
        return analysis["flops"] / cfg.block_size

    one, two = count(1), count(2)
    return one + (run_config.model.n_layer - 1) * (two - one)


def temporaries(run_config: RunConfig, mesh: Mesh | None) -> int:
    """Bytes of temporaries on one device, in the CPU's program of a float32 update."""
    analysis: Any = _compiled(run_config, mesh).memory_analysis()
    return analysis.temp_size_in_bytes


def communication(run_config: RunConfig, mesh: Mesh | None) -> Counter[str]:
    """Bytes that the collectives of one update write on each device, by kind.

    They are counted in the unrolled programs of one and two blocks with one micro-batch. Each
    further block adds as much as the second, and each micro-batch as much as the first.
    """
    if mesh is None:
        return Counter()
    train = run_config.train
    micro_batches = train.sequences_per_update // train.sequences_at_once

    def count(n_layer: int) -> Counter[str]:
        small = run_config.replace(
            n_layer=n_layer,
            scan_layers=False,
            trainable="all",
            batch_size=train.sequences_at_once,
            micro_batch_size=0,
            gradient_accumulation_steps=1,
        )
        found: Counter[str] = Counter()
        for kind, _, size in collectives(_compiled(small, mesh).as_text()):
            found[kind] += size
        return found

    one, two = count(1), count(2)
    more = run_config.model.n_layer - 1
    return Counter(
        {
            kind: micro_batches * (one[kind] + more * max(0, two[kind] - one[kind]))
            for kind in sorted(one | two)
        }
    )


def _abstract_state(run_config: RunConfig, mesh: Mesh | None) -> Any:
    model = suited(GPT(run_config.model), run_config, "cpu")
    init = partial(init_state, model, run_config)
    return sharding.target(mesh, jax.eval_shape(init, make_keys(0).params))


def _compiled(run_config: RunConfig, mesh: Mesh | None) -> Any:
    """Compiles the program of updates in float32, without running it."""
    run_config = run_config.replace(dtype="float32")
    model = sharding.spread(suited(GPT(run_config.model), run_config, "cpu"), mesh)
    keys = sharding.everywhere(mesh, make_keys(0))
    where = None if mesh is None else sharding.replicated(mesh)
    tokens = jax.ShapeDtypeStruct((10**6,), jnp.uint16, sharding=where)
    loop: Any = make_train_loop(model, run_config, sharding.placement(mesh))
    state = _abstract_state(run_config, mesh)
    return loop.lower(state, tokens, keys, jnp.int32(1)).compile(FAST)


def _held(tree: Any) -> int:
    """Bytes of a tree's arrays on one device."""

    def size(x: Any) -> int:
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        return math.prod(shape) * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))
