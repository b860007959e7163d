"""The GPT in JAX and a dict: no library for the model, none for the optimizer.

`forward` and `loss` are the whole model, and fit a page; the rest of the file is what a library
would have brought. The parameters are the nested dict that gptjax keeps on the disk. Arrays carry
their shape in their name: Batch, Time, S earlier times, Channels, Heads, D per head, Vocabulary.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:  # at run time, nothing but JAX
    from gptjax.config import RunConfig

Array = jax.Array
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


@partial(jax.jit, static_argnums=0)
def forward(config: RunConfig, params: Any, x_BT: Array, dropout_key: Array | None = None) -> Array:
    """Logits (B, T, V), float32; dropout only where a key is given."""
    cfg, T = config.model, x_BT.shape[1]
    keys = (
        iter(jax.random.split(dropout_key, 3 * cfg.n_layer + 1))
        if dropout_key is not None
        else None
    )

    def dropout(x: Array) -> Array:
        if keys is None or cfg.dropout == 0:
            return x
        keep = jax.random.bernoulli(next(keys), 1 - cfg.dropout, x.shape)
        return jnp.where(keep, x / (1 - cfg.dropout), 0)

    def layer_norm(p: Any, x: Array) -> Array:
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["scale"]
        return (x + p.get("bias", 0)).astype(cfg.dtype)

    def dense(p: Any, x: Array, how: str = "btc,cd->btd") -> Array:
        y = jnp.einsum(how, x, p["kernel"].astype(cfg.dtype))
        return y + p["bias"].astype(cfg.dtype) if "bias" in p else y

    def attention(p: Any, x_BTC: Array) -> Array:
        q, k, v = (dense(p["heads"][n], x_BTC, "btc,hcd->bthd") for n in ("query", "key", "value"))
        scores_BHTS = jnp.einsum("bthd,bshd->bhts", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
        past_TS = jnp.tril(jnp.ones((T, T), bool))
        weights_BHTS = jax.nn.softmax(jnp.where(past_TS, scores_BHTS, -jnp.inf))
        y_BTHD = jnp.einsum("bhts,bshd->bthd", dropout(weights_BHTS).astype(v.dtype), v)
        return dropout(dense(p["proj"], y_BTHD.reshape(x_BTC.shape)))

    def feed_forward(p: Any, x_BTC: Array) -> Array:
        return dropout(dense(p["proj"], ACTIVATIONS[cfg.activation](dense(p["fc"], x_BTC))))

    wte, wpe = params["wte"]["embedding"], params["wpe"]["embedding"]
    x_BTC = (wte[x_BT] + wpe[:T]).astype(cfg.dtype)
    x_BTC = dropout(x_BTC) if cfg.embd_dropout else x_BTC
    for i in range(cfg.n_layer):
        p = params[f"block_{i}"]
        x_BTC = x_BTC + attention(p["attn"], layer_norm(p["ln_1"], x_BTC))
        x_BTC = x_BTC + feed_forward(p["mlp"], layer_norm(p["ln_2"], x_BTC))
    head = dict(params.get("lm_head", {}))  # the token table again, where they are tied
    head.setdefault("kernel", wte.T)
    return dense(head, layer_norm(params["ln_f"], x_BTC)).astype(jnp.float32)


@partial(jax.jit, static_argnums=0)
def loss(
    config: RunConfig, params: Any, x_BT: Array, y_BT: Array, dropout_key: Array | None = None
) -> Array:
    """Mean cross entropy, nats per token."""
    log_BTV = jax.nn.log_softmax(forward(config, params, x_BT, dropout_key))
    return -jnp.take_along_axis(log_BTV, y_BT[..., None], axis=-1).mean()


# What a library would have brought.


@partial(jax.jit, static_argnums=(0, 1))
def make(config: RunConfig, seed: int) -> dict[str, Any]:
    """Fresh parameters, and zeros for AdamW: {"step", "params", "mean", "square"}."""
    cfg, C, H = config.model, config.model.n_embd, config.model.n_head
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


def learning_rate(config: RunConfig, step: Array) -> Array:
    """Linear warm-up over a tenth of the run at most, then a cosine or a line down to `min_lr`."""
    cfg = config.train
    warmup = min(cfg.warmup_iters, cfg.max_iters // 10)
    ramp = cfg.learning_rate * (step + 1) / (warmup + 1)
    done = jnp.clip((step - warmup) / max(cfg.max_iters - warmup, 1), 0, 1)
    left = 1 - done if cfg.schedule == "linear" else 0.5 * (1 + jnp.cos(jnp.pi * done))
    return jnp.where(step < warmup, ramp, cfg.min_lr + (cfg.learning_rate - cfg.min_lr) * left)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    config: RunConfig, state: dict[str, Any], x_BT: Array, y_BT: Array, key: Array
) -> tuple[dict[str, Any], Array]:
    """The state after one update of AdamW, and the loss before it."""
    cfg, step = config.train, state["step"]
    value, grads = jax.value_and_grad(partial(loss, config))(
        state["params"], x_BT, y_BT, jax.random.fold_in(key, step)
    )
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
    clip = jnp.where(norm > cfg.grad_clip, cfg.grad_clip / norm, 1) if cfg.grad_clip else 1.0
    rate, t = learning_rate(config, step), step + 1

    def update(path: Any, p: Array, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        m = cfg.beta1 * m + (1 - cfg.beta1) * clip * g
        v = cfg.beta2 * v + (1 - cfg.beta2) * (clip * g) ** 2
        new = (m / (1 - cfg.beta1**t)) / (jnp.sqrt(v / (1 - cfg.beta2**t)) + 1e-8)
        decays = cfg.decay == "all" or path[-1].key in ("kernel", "embedding")
        return p - rate * (new + (cfg.weight_decay * p if decays else 0)), m, v

    parts = jax.tree_util.tree_map_with_path(
        update, state["params"], grads, state["mean"], state["square"]
    )
    names = ("params", "mean", "square")
    new = jax.tree.transpose(jax.tree.structure(grads), jax.tree.structure((0, 0, 0)), parts)
    return {"step": t, **dict(zip(names, new, strict=True))}, value


@partial(jax.jit, static_argnums=(0, 4))
def generate(
    config: RunConfig,
    params: Any,
    prompt_BT: Array,
    key: Array,
    max_new_tokens: int,
    temperature: Array | float = 1.0,
) -> Array:
    """The prompts and what follows; no cache: each token is a forward of its whole window."""
    T = prompt_BT.shape[1]
    N = T + max_new_tokens
    window = min(N, config.model.block_size)

    def fill(n: Array, tokens_BN: Array) -> Array:
        first = jnp.maximum(n - window, 0)
        logits_BTV = forward(
            config, params, jax.lax.dynamic_slice_in_dim(tokens_BN, first, window, 1)
        )
        logits_BV = jax.lax.dynamic_index_in_dim(logits_BTV, n - first - 1, 1, keepdims=False)
        warm = jax.random.categorical(
            jax.random.fold_in(key, n), logits_BV / jnp.maximum(temperature, 1e-9)
        )
        return tokens_BN.at[:, n].set(jnp.where(temperature > 0, warm, logits_BV.argmax(-1)))

    return jax.lax.fori_loop(T, N, fill, jnp.pad(prompt_BT, ((0, 0), (0, max_new_tokens))))


def save(path: Path, state: dict[str, Any]) -> None:
    """One .npz file: the leaves in the tree's order, which `make` knows."""
    path.mkdir(parents=True, exist_ok=True)
    np.savez(path / "state.npz", *map(np.asarray, jax.tree.leaves(state)))


def load(path: Path, config: RunConfig) -> dict[str, Any]:
    """The state that was saved."""
    structure = jax.tree.structure(jax.eval_shape(partial(make, config, 0)))
    with np.load(path / "state.npz", allow_pickle=False) as file:
        return jax.tree.unflatten(structure, [jnp.asarray(file[name]) for name in file.files])
