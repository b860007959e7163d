"""The GPT in Flax NNX: objects that hold their parameters, their mode and their random numbers.

    model, optimizer = make(run_config, seed=0)
    loss = train_step(model, optimizer, x_BT, y_BT)     # changes both in place
    tokens = generate(model, prompt_BT, key, Settings(max_new_tokens=100))

It follows gptjax.model line by line in another style, with the same parameters, products and
attention. So only the design differs. tuned.py injects the CPU's own products.

Arrays carry their shape in their name: Batch, Time, S positions attended to, Channels, Heads,
D per head, Vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from orbax.checkpoint import v1 as ocp

from compare.sampling import Past, Settings, attend, reader, sample

if TYPE_CHECKING:  # at run time, nothing of gptjax
    from gptjax.config import GPTConfig, RunConfig, TrainConfig

Array = jax.Array
ACTIVATIONS = {
    "relu": nnx.relu,
    "gelu": partial(nnx.gelu, approximate=False),
    "gelu_tanh": partial(nnx.gelu, approximate=True),
}


def attention(q_HBTD: Array, k_HBTD: Array, v_HBTD: Array, drop: Callable[[Array], Array]) -> Array:
    """Causal attention of all heads, (H, B, T, D); `drop` applies dropout to the weights."""
    T, scale = q_HBTD.shape[2], q_HBTD.shape[-1] ** -0.5
    scores_HBTS = jnp.einsum("hbtd,hbsd->hbts", q_HBTD, k_HBTD).astype(jnp.float32) * scale
    visible_TS = jnp.tril(jnp.ones((T, T), bool))
    weights_HBTS = nnx.softmax(jnp.where(visible_TS[None, None], scores_HBTS, -jnp.inf))
    return jnp.einsum("hbts,hbsd->hbtd", drop(weights_HBTS).astype(v_HBTD.dtype), v_HBTD)


class MultiHeadAttention(nnx.Module):
    """Causal self-attention of all heads at once: (B, T, C) to (B, T, C)."""

    def __init__(self, cfg: GPTConfig, rngs: nnx.Rngs) -> None:
        C, H = cfg.n_embd, cfg.n_head
        project = partial(
            nnx.Einsum,
            "btc,hcd->bthd",
            (H, C, C // H),
            (H, C // H) if cfg.qkv_bias else None,
            dtype=jnp.dtype(cfg.dtype),
            kernel_init=nnx.initializers.normal(cfg.init_std),
            rngs=rngs,
        )
        self.query, self.key, self.value = project(), project(), project()
        self.attention: Callable[..., Array] = attention  # without a cache
        self.proj = linear(cfg, C, C, cfg.bias, rngs, residual=True)
        self.att_dropout = nnx.Dropout(cfg.dropout, rngs=rngs)
        self.dropout = nnx.Dropout(cfg.dropout, rngs=rngs)

    def __call__(self, x_BTC: Array, past: Past | None) -> tuple[Array, tuple[Array, Array]]:
        q_HBTD, k_HBTD, v_HBTD = (
            project(x_BTC).transpose(2, 0, 1, 3) for project in (self.query, self.key, self.value)
        )
        if past is None:
            y_HBTD = self.attention(q_HBTD, k_HBTD, v_HBTD, self.att_dropout)
        else:
            y_HBTD = attend(q_HBTD, k_HBTD, v_HBTD, past)
        y_BTC = y_HBTD.transpose(1, 2, 0, 3).reshape(x_BTC.shape)
        return self.dropout(self.proj(y_BTC)), (k_HBTD, v_HBTD)


class FeedForward(nnx.Module):
    """C to 4C, activation, back to C, at each position separately."""

    def __init__(self, cfg: GPTConfig, rngs: nnx.Rngs) -> None:
        C = cfg.n_embd
        self.fc = linear(cfg, C, 4 * C, cfg.bias, rngs)
        self.activation = ACTIVATIONS[cfg.activation]
        self.proj = linear(cfg, 4 * C, C, cfg.bias, rngs, residual=True)
        self.dropout = nnx.Dropout(cfg.dropout, rngs=rngs)

    def __call__(self, x_BTC: Array) -> Array:
        return self.dropout(self.proj(self.activation(self.fc(x_BTC))))


class Block(nnx.Module):
    """Communication, then computation, each added to the residual stream after a LayerNorm."""

    def __init__(self, cfg: GPTConfig, rngs: nnx.Rngs) -> None:
        self.ln_1 = layer_norm(cfg, rngs)
        self.attn = MultiHeadAttention(cfg, rngs)
        self.ln_2 = layer_norm(cfg, rngs)
        self.mlp = FeedForward(cfg, rngs)

    def __call__(self, x_BTC: Array, past: Past | None) -> tuple[Array, tuple[Array, Array]]:
        y_BTC, kv = self.attn(self.ln_1(x_BTC), past)
        x_BTC = x_BTC + y_BTC
        return x_BTC + self.mlp(self.ln_2(x_BTC)), kv


class NnxGPT(nnx.Module):
    """Token ids (B, T) to logits for the next token at every position, (B, T, V), float32."""

    def __init__(self, cfg: GPTConfig, rngs: nnx.Rngs) -> None:
        C, V = cfg.n_embd, cfg.vocab_size
        table = partial(
            nnx.Embed,
            features=C,
            dtype=jnp.dtype(cfg.dtype),
            embedding_init=nnx.initializers.normal(cfg.init_std),
            rngs=rngs,
        )
        self.wte, self.wpe = table(V), table(cfg.block_size)
        self.dropout = nnx.Dropout(cfg.dropout if cfg.embd_dropout else 0.0, rngs=rngs)
        self.blocks = nnx.List(Block(cfg, rngs) for _ in range(cfg.n_layer))
        self.ln_f = layer_norm(cfg, rngs)
        self.tied = cfg.tie_embeddings
        if not self.tied:
            self.lm_head = linear(cfg, C, V, cfg.head_bias, rngs)
        elif cfg.head_bias:
            self.head_bias = nnx.Param(jnp.zeros(V))
        self.block_size = cfg.block_size

    def __call__(self, x_BT: Array) -> Array:
        return self.with_past(x_BT)[0]

    def with_past(
        self, x_BT: Array, past: Sequence[Past] | None = None, start: Any = 0
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """Logits at the positions from `start`, and each block's keys and values, (H, B, T, D)."""
        x_BTC = self.dropout(self.wte(x_BT) + self.wpe(start + jnp.arange(x_BT.shape[1]))[None])
        kv = []
        for i, block in enumerate(self.blocks):
            x_BTC, new = block(x_BTC, None if past is None else past[i])
            kv.append(new)
        x_BTC = self.ln_f(x_BTC)
        logits_BTV = self.wte.attend(x_BTC) if self.tied else self.lm_head(x_BTC)
        if hasattr(self, "head_bias"):
            logits_BTV = logits_BTV + self.head_bias[...].astype(logits_BTV.dtype)[None, None]
        return logits_BTV.astype(jnp.float32), kv


def linear(
    cfg: GPTConfig, n_in: int, n_out: int, bias: bool, rngs: nnx.Rngs, residual: bool = False
) -> nnx.Linear:
    """Starts at N(0, init_std), or smaller for a residual projection if the config asks for it."""
    scale = (2 * cfg.n_layer) ** -0.5 if residual and cfg.scaled_residual_init else 1.0
    init = nnx.initializers.normal(cfg.init_std * scale)
    dtype = jnp.dtype(cfg.dtype)
    return nnx.Linear(n_in, n_out, use_bias=bias, dtype=dtype, kernel_init=init, rngs=rngs)


def layer_norm(cfg: GPTConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with PyTorch's epsilon, and a variance computed without cancellation."""
    return nnx.LayerNorm(
        cfg.n_embd,
        epsilon=1e-5,
        use_bias=cfg.ln_bias,
        use_fast_variance=False,
        dtype=jnp.dtype(cfg.dtype),
        rngs=rngs,
    )


@nnx.jit(static_argnames=("run_config", "seed"))  # one program instead of hundreds of small ones
def make(run_config: RunConfig, seed: int) -> tuple[NnxGPT, nnx.Optimizer]:
    """Makes a new model in training mode, and its optimizer."""
    model = NnxGPT(run_config.model, nnx.Rngs(seed))
    return model, nnx.Optimizer(model, make_optimizer(run_config.train), wrt=nnx.Param)


def make_optimizer(train_config: TrainConfig) -> optax.GradientTransformation:
    """AdamW with warm-up and a cosine or linear decay, after clipping by the global norm."""
    warmup = min(train_config.warmup_iters, train_config.max_iters // 10)
    peak, length = train_config.learning_rate, max(train_config.max_iters - warmup, 1)
    ramp = optax.linear_schedule(peak / (warmup + 1), peak, max(warmup, 1))
    if train_config.schedule == "linear":
        fall = optax.linear_schedule(peak, train_config.min_lr, length)
    else:
        fall = optax.cosine_decay_schedule(
            peak, length, train_config.min_lr / peak if peak else 0.0
        )

    def decays(params: Any) -> Any:  # kernels and embeddings, but not biases and scales
        def is_matrix(path: Any, _: Any) -> bool:
            names = {getattr(entry, "key", None) for entry in path}
            return bool(names & {"kernel", "embedding"})

        return jax.tree_util.tree_map_with_path(is_matrix, params)

    mask = decays if train_config.decay == "matrices" else None
    return optax.chain(
        optax.clip_by_global_norm(train_config.grad_clip)
        if train_config.grad_clip
        else optax.identity(),
        optax.scale_by_adam(train_config.beta1, train_config.beta2),
        optax.add_decayed_weights(train_config.weight_decay, mask),
        optax.scale_by_learning_rate(optax.join_schedules([ramp, fall], [warmup])),
    )


@nnx.jit
def forward(model: NnxGPT, x_BT: Array) -> Array:
    """Logits (B, T, V); with dropout if the model is in training mode."""
    return model(x_BT)


@nnx.jit
def loss(model: NnxGPT, x_BT: Array, y_BT: Array) -> Array:
    """Mean cross entropy, nats per token."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x_BT), y_BT).mean()


def update(model: NnxGPT, optimizer: nnx.Optimizer, x_BT: Array, y_BT: Array) -> Array:
    """Updates model and optimizer in place; returns the loss before the update. Not jitted."""
    value, grads = nnx.value_and_grad(loss)(model, x_BT, y_BT)
    optimizer.update(model, grads)
    return value


train_step = nnx.jit(update, donate_argnames=("model", "optimizer"))


@nnx.jit(donate_argnames=("model", "optimizer"))
def train_steps(model: NnxGPT, optimizer: nnx.Optimizer, x_NBT: Array, y_NBT: Array) -> Array:
    """Does N updates in one dispatch, in place; returns the losses, (N,)."""

    @nnx.scan(in_axes=(nnx.Carry, 0, 0), out_axes=(nnx.Carry, 0))
    def one(both: tuple[NnxGPT, nnx.Optimizer], x_BT: Array, y_BT: Array) -> Any:
        return both, update(*both, x_BT, y_BT)

    return one((model, optimizer), x_NBT, y_NBT)[1]


def generate(model: NnxGPT, prompt_BT: Array, key: Array, settings: Settings) -> Array:
    """The prompts and the new tokens, (B, T + max_new_tokens). The model may be in any mode."""
    return generate_split(*nnx.split(model), prompt_BT, key, settings)


@partial(jax.jit, static_argnames=("graphdef", "settings"))
def generate_split(
    graphdef: Any, state: Any, prompt_BT: Array, key: Array, settings: Settings
) -> Array:
    """`generate` for a caller that splits its model only once, as a server would."""

    def run(state: Any, x_BT: Array, past: Sequence[Past] | None, start: Any) -> Any:
        model = nnx.merge(graphdef, state)
        model.eval()  # changes this copy, not the caller's model
        return model.with_past(x_BT, past, start)

    block_size = nnx.merge(graphdef, state).block_size
    return sample(reader(run, block_size), state, prompt_BT, key, block_size, settings)


def save(path: Path, model: NnxGPT, optimizer: nnx.Optimizer) -> None:
    """Saves the state of both, including random streams, with Orbax."""
    state = nnx.to_pure_dict(nnx.state((model, optimizer)))
    ocp.save_checkpointables(str(path.absolute()), {"state": state}, overwrite=True)


def load(path: Path, model: NnxGPT, optimizer: nnx.Optimizer) -> None:
    """Loads into both in place. They must have the configuration that was saved."""
    state = nnx.state((model, optimizer))
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        nnx.to_pure_dict(state),
    )
    loaded = ocp.load_checkpointables(str(path.absolute()), {"state": like})
    nnx.replace_by_pure_dict(state, loaded["state"])
    nnx.update((model, optimizer), state)
