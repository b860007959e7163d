"""The GPT in JAX and a dict, with no library for the model and none for the optimizer.

    state = make(run_config, seed=0)                     # {"step", "params", "mean", "square"}
    state, loss = train_step(run_config, state, x_BT, y_BT, key)
    tokens = generate(run_config, state["params"], prompt_BT, key, Settings(max_new_tokens=100))

`with_past` is the whole model, and fits on a page. plain_library.py has what a library would
provide: initial values, the schedule, AdamW. The parameters are gptjax's own nested dict, and the
products and the attention are those of gptjax.model. This file imports nothing from gptjax, so it
repeats the causal mask.

Arrays carry their shape in their name: Batch, Time, S positions attended to, Channels, Heads,
D per head, Vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from compare.plain_library import adamw
from compare.plain_library import make as make
from compare.sampling import Past, Settings, attend, reader, sample

if TYPE_CHECKING:  # at run time, nothing but JAX
    from gptjax.config import RunConfig

Array = jax.Array
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


def attention(q_HBTD: Array, k_HBTD: Array, v_HBTD: Array, drop: Callable[[Array], Array]) -> Array:
    """Causal attention of all heads, (H, B, T, D); `drop` applies dropout to the weights."""
    T, scale = q_HBTD.shape[2], q_HBTD.shape[-1] ** -0.5
    scores_HBTS = jnp.einsum("hbtd,hbsd->hbts", q_HBTD, k_HBTD).astype(jnp.float32) * scale
    visible_TS = jnp.tril(jnp.ones((T, T), bool))
    weights_HBTS = jax.nn.softmax(jnp.where(visible_TS, scores_HBTS, -jnp.inf))
    return jnp.einsum("hbts,hbsd->hbtd", drop(weights_HBTS).astype(v_HBTD.dtype), v_HBTD)


def projection(x_BTC: Array, w_HCD: Array) -> Array:
    """The projections of all heads, (H, B, T, D).

    This is one product over (B, T) and (H, D), then a transposition. For one new token, this order
    is fast, and it is the order that Linen's `nn.vmap` of a head compiles to.
    """
    return jnp.einsum("btc,hcd->bthd", x_BTC, w_HCD).transpose(2, 0, 1, 3)


class Execution(NamedTuple):
    """The functions that a backend may replace. The defaults are plain JAX."""

    projection: Callable[[Array, Array], Array] = projection
    product: Callable[[Array, Array], Array] = partial(jnp.einsum, "btc,cd->btd")
    attention: Callable[..., Array] = attention  # without a cache


PLAIN = Execution()


def with_past(
    run_config: RunConfig,
    params: Any,
    x_BT: Array,
    dropout_key: Array | None = None,
    execution: Execution = PLAIN,
    past: Sequence[Past] | None = None,
    start: Any = 0,
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Logits at the positions from `start`, and each block's keys and values, (H, B, T, D)."""
    cfg, T = run_config.model, x_BT.shape[1]
    count = 3 * cfg.n_layer + 1
    keys = iter(jax.random.split(dropout_key, count)) if dropout_key is not None else None

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

    def dense(p: Any, x: Array, product: Callable[..., Array] = execution.product) -> Array:
        y = product(x, p["kernel"].astype(cfg.dtype))
        return y + p["bias"].astype(cfg.dtype) if "bias" in p else y

    def project(p: Any, x_BTC: Array) -> Array:
        y_HBTD = execution.projection(x_BTC, p["kernel"].astype(cfg.dtype))
        return y_HBTD + p["bias"].astype(cfg.dtype)[:, None, None] if "bias" in p else y_HBTD

    def communicate(p: Any, x_BTC: Array, past: Past | None) -> Array:
        q, k, v = (project(p["heads"][name], x_BTC) for name in ("query", "key", "value"))
        kv.append((k, v))
        y_HBTD = attend(q, k, v, past) if past else execution.attention(q, k, v, dropout)
        return dropout(dense(p["proj"], y_HBTD.transpose(1, 2, 0, 3).reshape(x_BTC.shape)))

    def compute(p: Any, x_BTC: Array) -> Array:
        return dropout(dense(p["proj"], ACTIVATIONS[cfg.activation](dense(p["fc"], x_BTC))))

    wte, wpe = params["wte"]["embedding"], params["wpe"]["embedding"]
    x_BTC = (wte[x_BT] + wpe[start + jnp.arange(T)]).astype(cfg.dtype)
    x_BTC = dropout(x_BTC) if cfg.embd_dropout else x_BTC
    kv: list[tuple[Array, Array]] = []
    for i in range(cfg.n_layer):
        p = params[f"block_{i}"]
        before = past[i] if past else None
        x_BTC = x_BTC + communicate(p["attn"], layer_norm(p["ln_1"], x_BTC), before)
        x_BTC = x_BTC + compute(p["mlp"], layer_norm(p["ln_2"], x_BTC))
    head = dict(params.get("lm_head", {}))  # the token table, if it is tied
    head.setdefault("kernel", wte.T)
    logits_BTV = dense(head, layer_norm(params["ln_f"], x_BTC), PLAIN.product)
    return logits_BTV.astype(jnp.float32), kv


@partial(jax.jit, static_argnames=("run_config", "execution"))
def forward(
    run_config: RunConfig,
    params: Any,
    x_BT: Array,
    dropout_key: Array | None = None,
    execution: Execution = PLAIN,
) -> Array:
    """Logits (B, T, V), float32; with dropout only if a key is given."""
    return with_past(run_config, params, x_BT, dropout_key, execution)[0]


@partial(jax.jit, static_argnames=("run_config", "execution"))
def loss(
    run_config: RunConfig,
    params: Any,
    x_BT: Array,
    y_BT: Array,
    dropout_key: Array | None = None,
    execution: Execution = PLAIN,
) -> Array:
    """Mean cross entropy, nats per token."""
    logits_BTV = forward(run_config, params, x_BT, dropout_key, execution)
    target_BT = jnp.take_along_axis(logits_BTV, y_BT[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT).mean()


def update(
    run_config: RunConfig,
    state: dict[str, Any],
    x_BT: Array,
    y_BT: Array,
    key: Array,
    execution: Execution = PLAIN,
) -> tuple[dict[str, Any], Array]:
    """The state after one AdamW update, and the loss before the update. Not jitted."""
    value, grads = jax.value_and_grad(partial(loss, run_config, execution=execution))(
        state["params"], x_BT, y_BT, jax.random.fold_in(key, state["step"])
    )
    return adamw(run_config, state, grads), value


train_step = jax.jit(update, static_argnames=("run_config", "execution"), donate_argnames="state")


@partial(jax.jit, static_argnames=("run_config", "execution"), donate_argnames="state")
def train_steps(
    run_config: RunConfig,
    state: dict[str, Any],
    x_NBT: Array,
    y_NBT: Array,
    key: Array,
    execution: Execution = PLAIN,
) -> tuple[dict[str, Any], Array]:
    """N updates in one dispatch: the state after them, and their losses, (N,)."""

    def one(state: dict[str, Any], batch: Any) -> tuple[dict[str, Any], Array]:
        x_BT, y_BT = batch
        return update(run_config, state, x_BT, y_BT, key, execution)

    return jax.lax.scan(one, state, (x_NBT, y_NBT))


@partial(jax.jit, static_argnames=("run_config", "settings"))
def generate(
    run_config: RunConfig, params: Any, prompt_BT: Array, key: Array, settings: Settings
) -> Array:
    """The prompts and the new tokens, (B, T + max_new_tokens)."""

    def run(params: Any, x_BT: Array, past: Sequence[Past] | None, start: Any) -> Any:
        return with_past(run_config, params, x_BT, past=past, start=start)

    block_size = run_config.model.block_size
    return sample(reader(run, block_size), params, prompt_BT, key, block_size, settings)


def save(path: Path, state: dict[str, Any]) -> None:
    """Saves one .npz file with the leaves in the tree's order, which `make` defines."""
    path.mkdir(parents=True, exist_ok=True)
    np.savez(path / "state.npz", *map(np.asarray, jax.tree.leaves(state)))


def load(path: Path, run_config: RunConfig) -> dict[str, Any]:
    """Loads the saved state."""
    structure = jax.tree.structure(jax.eval_shape(partial(make, run_config, 0)))
    with np.load(path / "state.npz", allow_pickle=False) as file:
        return jax.tree.unflatten(structure, [jnp.asarray(file[name]) for name in file.files])
