"""AdamW or Muon, built from parts: clipping, direction, weight decay, learning rate schedule."""

import re
from collections.abc import Callable
from typing import Any

import jax
import optax

from gptjax.config import TrainConfig
from gptjax.errors import ConfigError
from gptjax.muon import muon

# A parameter's name tells its kind. Its shape does not: the bias of all heads is a matrix.
DECAYED = frozenset({"kernel", "embedding"})
NOT_DECAYED = frozenset({"bias", "scale"})


def learning_rate_schedule(train_config: TrainConfig) -> Callable[[Any], Any]:
    """Linear warm-up to `learning_rate`, then a decay that reaches `min_lr` at max_iters.

    The decay is half a cosine, as in nanoGPT, or linear. Linear decay to 0 reaches a lower loss,
    here and elsewhere (Bergsma et al., "Straight to zero", 2025; docs/results.md).

    The warm-up is min(warmup_iters, max_iters // 10) updates long, so that a short run trains too.
    Update s (from 0) of a warm-up of w has the rate learning_rate * (s + 1) / (w + 1), as in
    nanoGPT: the first update is not wasted on a rate of 0.

    With `schedule_start`, warm-up and decay cover the steps from there to max_iters.

    Returns:
        A function from the update's number to its learning rate.
    """
    peak, floor = train_config.learning_rate, train_config.min_lr
    start = train_config.schedule_start
    steps = max(train_config.max_iters - start, 1)
    warmup = min(train_config.warmup_iters, steps // 10)
    length = max(steps - warmup, 1)
    if train_config.schedule == "linear":
        fall = optax.linear_schedule(peak, floor, length)
    else:
        fall = optax.cosine_decay_schedule(peak, length, alpha=floor / peak if peak else 0.0)
    rate = optax.join_schedules(
        [optax.linear_schedule(peak / (warmup + 1), peak, max(warmup, 1)), fall],
        boundaries=[warmup],
    )
    return (lambda step: rate(step - start)) if start else rate


def decay_mask(params: Any) -> Any:
    """True where weight decay applies: kernels and embeddings, not biases and LayerNorm scales.

    Raises:
        ValueError: a parameter is of neither kind or of both; the message names it.
    """

    def decays(path: Any, _: Any) -> bool:
        name = path[-1].key
        if (name in DECAYED) == (name in NOT_DECAYED):
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"{where}: a parameter must be in exactly one of {sorted(DECAYED)} (decayed) and "
                f"{sorted(NOT_DECAYED)} (not)"
            )
        return name in DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(train_config: TrainConfig) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2) after
    clipping by the global norm. Decay is scaled by the learning rate, as in PyTorch.

    With `optimizer` muon, the blocks' matrices take Muon's direction instead of Adam's. Parameters
    that are not trained (`trainable`) have no moments, and do not count in the gradient's norm.
    """
    direction = optax.scale_by_adam(b1=train_config.beta1, b2=train_config.beta2, eps=1e-8)
    if train_config.optimizer == "muon":
        direction = optax.partition(
            {"adam": direction, "muon": muon(train_config.beta1)}, direction_of
        )
    # Both are stateless. Clipping at infinity would do the same, but round differently.
    bound = train_config.grad_clip
    clip = optax.clip_by_global_norm(bound) if bound else optax.identity()
    mask = decay_mask if train_config.decay == "matrices" else None
    # Always these four links: a checkpoint names its arrays by their position in the chain.
    chain = optax.chain(
        clip,
        direction,
        optax.add_decayed_weights(train_config.weight_decay, mask=mask),
        optax.scale_by_learning_rate(learning_rate_schedule(train_config)),
    )
    if train_config.trainable == "all":
        return chain

    def label(params: Any) -> Any:
        trained = trained_mask(params, train_config.trainable)
        return jax.tree.map(lambda is_trained: "trained" if is_trained else "frozen", trained)

    return optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, label)


def trained_mask(params: Any, trainable: str) -> Any:
    """True for the parameters that `trainable` names.

    Its items are joined by commas: `all`; `ln`, every LayerNorm; `last:N`, the last N blocks and
    the layers after them; or a part of a parameter's path, such as `mlp`, `block_3/attn`, `wte`.

    Raises:
        ConfigError: an item names no parameter, or more blocks than there are.
    """
    blocks = sorted((x for x in params if x.startswith("block_")), key=lambda x: int(x[6:]))

    def pattern(item: str) -> str:
        if item == "all":
            return ""
        if item == "ln":
            return "(^|/)ln_"
        if item.startswith("last:"):
            count = int(item[5:])
            rule = f"must be from last:1 to last:{len(blocks)}, the number of blocks"
            if not 1 <= count <= len(blocks):
                raise ConfigError("trainable", item, rule)
            return f"^({'|'.join(blocks[-count:])}|ln_f|lm_head)/"
        return f"(^|/){re.escape(item)}(/|$)"

    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    mask = [False] * len(paths)
    for item in trainable.split(","):
        found = [re.search(pattern(item), path) is not None for path in paths]
        if not any(found):
            there = sorted({part for path in paths for part in path.split("/")[:-1]})
            rule = f"names no parameter: give all, ln, last:N, or some of {', '.join(there)}"
            raise ConfigError("trainable", item, rule)
        mask = [a or b for a, b in zip(mask, found, strict=True)]
    return structure.unflatten(mask)


def direction_of(params: Any) -> Any:
    """`muon` for the matrices between the embeddings and the output layer, `adam` for the rest."""

    def direction(path: Any, _: Any) -> str:
        inner = path[-1].key == "kernel" and path[0].key != "lm_head"
        return "muon" if inner else "adam"

    return jax.tree_util.tree_map_with_path(direction, params)
