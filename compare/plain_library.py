"""What a library would provide for plain_gpt.py: initial values, the schedule, AdamW."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:  # at run time, nothing but JAX
    from gptjax.config import RunConfig

Array = jax.Array


@partial(jax.jit, static_argnums=(0, 1))
def make(run_config: RunConfig, seed: int) -> dict[str, Any]:
    """Initializes parameters, and zeros for AdamW: {"step", "params", "mean", "square"}."""
    cfg = run_config.model
    C, H = cfg.n_embd, cfg.n_head
    keys = iter(jax.random.split(jax.random.key(seed), 6 * cfg.n_layer + 3))
    small = (2 * cfg.n_layer) ** -0.5 if cfg.scaled_residual_init else 1.0

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return scale * cfg.init_std * jax.random.normal(next(keys), shape)

    def dense(*shape: int, bias: bool, bias_shape: tuple[int, ...], scale: float = 1.0) -> Any:
        kernel = {"kernel": normal(*shape, scale=scale)}
        return kernel | {"bias": jnp.zeros(bias_shape)} if bias else kernel

    def layer_norm() -> Any:
        return {"scale": jnp.ones(C)} | ({"bias": jnp.zeros(C)} if cfg.ln_bias else {})

    def block() -> Any:
        head = partial(dense, H, C, C // H, bias=cfg.qkv_bias, bias_shape=(H, C // H))
        heads = {name: head() for name in ("query", "key", "value")}
        out = dense(C, C, bias=cfg.bias, bias_shape=(C,), scale=small)
        fc = dense(C, 4 * C, bias=cfg.bias, bias_shape=(4 * C,))
        proj = dense(4 * C, C, bias=cfg.bias, bias_shape=(C,), scale=small)
        attn, mlp = {"heads": heads, "proj": out}, {"fc": fc, "proj": proj}
        return {"ln_1": layer_norm(), "attn": attn, "ln_2": layer_norm(), "mlp": mlp}

    V = cfg.vocab_size
    params = {"wte": {"embedding": normal(V, C)}, "wpe": {"embedding": normal(cfg.block_size, C)}}
    params |= {f"block_{i}": block() for i in range(cfg.n_layer)} | {"ln_f": layer_norm()}
    if not cfg.tie_embeddings:
        params["lm_head"] = dense(C, V, bias=cfg.head_bias, bias_shape=(V,))
    elif cfg.head_bias:
        params["lm_head"] = {"bias": jnp.zeros(V)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    return {"step": jnp.int32(0), "params": params, "mean": zeros, "square": zeros}


def learning_rate(run_config: RunConfig, step: Array) -> Array:
    """Linear warm-up over at most a tenth of the run, then cosine or linear decay to `min_lr`."""
    train_config = run_config.train
    warmup = min(train_config.warmup_iters, train_config.max_iters // 10)
    ramp = train_config.learning_rate * (step + 1) / (warmup + 1)
    done = jnp.clip((step - warmup) / max(train_config.max_iters - warmup, 1), 0, 1)
    left = 1 - done if train_config.schedule == "linear" else 0.5 * (1 + jnp.cos(jnp.pi * done))
    return jnp.where(
        step < warmup,
        ramp,
        train_config.min_lr + (train_config.learning_rate - train_config.min_lr) * left,
    )


def adamw(run_config: RunConfig, state: dict[str, Any], grads: Any) -> dict[str, Any]:
    """The state after one update by these gradients, clipped to their global norm."""
    train_config, step = run_config.train, state["step"]
    norm = jnp.sqrt(sum((g * g).sum() for g in jax.tree.leaves(grads)))
    clip = (
        jnp.where(norm > train_config.grad_clip, train_config.grad_clip / norm, 1)
        if train_config.grad_clip
        else 1.0
    )
    rate, t = learning_rate(run_config, step), step + 1

    def update(path: Any, p: Array, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        m = train_config.beta1 * m + (1 - train_config.beta1) * clip * g
        v = train_config.beta2 * v + (1 - train_config.beta2) * (clip * g) ** 2
        new = (m / (1 - train_config.beta1**t)) / (jnp.sqrt(v / (1 - train_config.beta2**t)) + 1e-8)
        decays = train_config.decay == "all" or path[-1].key in ("kernel", "embedding")
        return p - rate * (new + (train_config.weight_decay * p if decays else 0)), m, v

    parts = jax.tree_util.tree_map_with_path(
        update, state["params"], grads, state["mean"], state["square"]
    )
    names = ("params", "mean", "square")
    new = jax.tree.transpose(jax.tree.structure(grads), jax.tree.structure((0, 0, 0)), parts)
    return {"step": t, **dict(zip(names, new, strict=True))}
