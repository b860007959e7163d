"""The GPT in Flax NNX: objects that hold their parameters, their mode and their random numbers.

    model, optimizer = make(config, seed=0)
    loss = train_step(model, optimizer, x_BT, y_BT)     # changes both in place
    text = generate(model, prompt_BT, key, max_new_tokens=100)

Arrays carry their shape in their name: Batch, Time, S positions attended to, Channels, Heads,
D per head, Vocabulary.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from orbax.checkpoint import v1 as ocp

if TYPE_CHECKING:  # at run time, nothing of gptjax
    from gptjax.config import GPTConfig, RunConfig, TrainConfig

Array = jax.Array
# Keys and values (B, N, H, D) of one block, of which the first so many positions are filled.
Cache = tuple[Array, Array]
ACTIVATIONS = {
    "relu": nnx.relu,
    "gelu": partial(nnx.gelu, approximate=False),
    "gelu_tanh": partial(nnx.gelu, approximate=True),
}


class MultiHeadAttention(nnx.Module):
    """Causal self-attention of all heads at once: (B, T, C) to itself."""

    def __init__(self, config: GPTConfig, rngs: nnx.Rngs) -> None:
        C, H = config.n_embd, config.n_head
        project = partial(
            nnx.Einsum,
            "btc,hcd->bthd",
            (H, C, C // H),
            (H, C // H) if config.qkv_bias else None,
            dtype=jnp.dtype(config.dtype),
            kernel_init=nnx.initializers.normal(config.init_std),
            rngs=rngs,
        )
        self.query, self.key, self.value = project(), project(), project()
        self.proj = linear(config, C, C, config.bias, rngs, residual=True)
        self.att_dropout = nnx.Dropout(config.dropout, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)

    def __call__(self, x_BTC: Array, cache: Cache | None, start: Any) -> tuple[Array, Cache]:
        q_BTHD, k_BSHD, v_BSHD = self.query(x_BTC), self.key(x_BTC), self.value(x_BTC)
        if cache is not None:
            k_BSHD, v_BSHD = (
                jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1)
                for old, new in zip(cache, (k_BSHD, v_BSHD), strict=True)
            )
        T, S, D = q_BTHD.shape[1], k_BSHD.shape[1], q_BTHD.shape[-1]
        scores_BHTS = jnp.einsum("bthd,bshd->bhts", q_BTHD, k_BSHD).astype(jnp.float32) * D**-0.5
        past_TS = start + jnp.arange(T)[:, None] >= jnp.arange(S)[None]
        weights_BHTS = nnx.softmax(jnp.where(past_TS[None, None], scores_BHTS, -jnp.inf))
        weights_BHTS = self.att_dropout(weights_BHTS).astype(v_BSHD.dtype)
        y_BTHD = jnp.einsum("bhts,bshd->bthd", weights_BHTS, v_BSHD)
        return self.dropout(self.proj(y_BTHD.reshape(x_BTC.shape))), (k_BSHD, v_BSHD)


class FeedForward(nnx.Module):
    """C to 4C, activation, back to C, at each position alone."""

    def __init__(self, config: GPTConfig, rngs: nnx.Rngs) -> None:
        C = config.n_embd
        self.fc = linear(config, C, 4 * C, config.bias, rngs)
        self.activation = ACTIVATIONS[config.activation]
        self.proj = linear(config, 4 * C, C, config.bias, rngs, residual=True)
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)

    def __call__(self, x_BTC: Array) -> Array:
        return self.dropout(self.proj(self.activation(self.fc(x_BTC))))


class Block(nnx.Module):
    """Communication, then computation, each added to the residual stream after a LayerNorm."""

    def __init__(self, config: GPTConfig, rngs: nnx.Rngs) -> None:
        self.ln_1 = layer_norm(config, rngs)
        self.attn = MultiHeadAttention(config, rngs)
        self.ln_2 = layer_norm(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(self, x_BTC: Array, cache: Cache | None, start: Any) -> tuple[Array, Cache]:
        y_BTC, cache = self.attn(self.ln_1(x_BTC), cache, start)
        x_BTC = x_BTC + y_BTC
        return x_BTC + self.mlp(self.ln_2(x_BTC)), cache


class NnxGPT(nnx.Module):
    """Token ids (B, T) to the logits of the next token at every position, (B, T, V), float32."""

    def __init__(self, config: GPTConfig, rngs: nnx.Rngs) -> None:
        C, V = config.n_embd, config.vocab_size
        table = partial(
            nnx.Embed,
            features=C,
            dtype=jnp.dtype(config.dtype),
            embedding_init=nnx.initializers.normal(config.init_std),
            rngs=rngs,
        )
        self.wte, self.wpe = table(V), table(config.block_size)
        self.dropout = nnx.Dropout(config.dropout if config.embd_dropout else 0.0, rngs=rngs)
        self.blocks = nnx.List(Block(config, rngs) for _ in range(config.n_layer))
        self.ln_f = layer_norm(config, rngs)
        self.tied = config.tie_embeddings
        if not self.tied:
            self.lm_head = linear(config, C, V, config.head_bias, rngs)
        elif config.head_bias:
            self.head_bias = nnx.Param(jnp.zeros(V))
        self.block_size = config.block_size

    def __call__(self, x_BT: Array) -> Array:
        return self.with_cache(x_BT, [None] * len(self.blocks), 0)[0]

    def with_cache(self, x_BT: Array, caches: Any, start: Any) -> tuple[Array, list[Cache]]:
        """Logits of positions from `start`, and the caches with their keys and values in them."""
        x_BTC = self.dropout(self.wte(x_BT) + self.wpe(start + jnp.arange(x_BT.shape[1]))[None])
        filled = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x_BTC, cache = block(x_BTC, cache, start)
            filled.append(cache)
        x_BTC = self.ln_f(x_BTC)
        logits_BTV = self.wte.attend(x_BTC) if self.tied else self.lm_head(x_BTC)
        if hasattr(self, "head_bias"):
            logits_BTV = logits_BTV + self.head_bias[...].astype(logits_BTV.dtype)[None, None]
        return logits_BTV.astype(jnp.float32), filled


def linear(
    config: GPTConfig, n_in: int, n_out: int, bias: bool, rngs: nnx.Rngs, residual: bool = False
) -> nnx.Linear:
    """Starts at N(0, init_std), smaller where it writes into the residual stream, if so asked."""
    scale = (2 * config.n_layer) ** -0.5 if residual and config.scaled_residual_init else 1.0
    init = nnx.initializers.normal(config.init_std * scale)
    dtype = jnp.dtype(config.dtype)
    return nnx.Linear(n_in, n_out, use_bias=bias, dtype=dtype, kernel_init=init, rngs=rngs)


def layer_norm(config: GPTConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """PyTorch's epsilon, and the variance without cancellation."""
    return nnx.LayerNorm(
        config.n_embd,
        epsilon=1e-5,
        use_bias=config.ln_bias,
        use_fast_variance=False,
        dtype=jnp.dtype(config.dtype),
        rngs=rngs,
    )


@nnx.jit(static_argnames=("config", "seed"))  # one program instead of hundreds of small ones
def make(config: RunConfig, seed: int) -> tuple[NnxGPT, nnx.Optimizer]:
    """A fresh model in training mode, and its optimizer."""
    model = NnxGPT(config.model, nnx.Rngs(seed))
    return model, nnx.Optimizer(model, make_optimizer(config.train), wrt=nnx.Param)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW with warm-up and a cosine or linear decay, after clipping by the global norm."""
    warmup = min(config.warmup_iters, config.max_iters // 10)
    peak, length = config.learning_rate, max(config.max_iters - warmup, 1)
    ramp = optax.linear_schedule(peak / (warmup + 1), peak, max(warmup, 1))
    if config.schedule == "linear":
        fall = optax.linear_schedule(peak, config.min_lr, length)
    else:
        fall = optax.cosine_decay_schedule(peak, length, config.min_lr / peak if peak else 0.0)

    def decays(params: Any) -> Any:  # kernels and embeddings, not biases and scales
        def is_matrix(path: Any, _: Any) -> bool:
            names = {getattr(entry, "key", None) for entry in path}
            return bool(names & {"kernel", "embedding"})

        return jax.tree_util.tree_map_with_path(is_matrix, params)

    mask = decays if config.decay == "matrices" else None
    return optax.chain(
        optax.clip_by_global_norm(config.grad_clip) if config.grad_clip else optax.identity(),
        optax.scale_by_adam(config.beta1, config.beta2),
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.scale_by_learning_rate(optax.join_schedules([ramp, fall], [warmup])),
    )


@nnx.jit
def forward(model: NnxGPT, x_BT: Array) -> Array:
    """Logits (B, T, V); dropout where `model.train()` was called last."""
    return model(x_BT)


@nnx.jit
def loss(model: NnxGPT, x_BT: Array, y_BT: Array) -> Array:
    """Mean cross entropy, nats per token."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x_BT), y_BT).mean()


@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model: NnxGPT, optimizer: nnx.Optimizer, x_BT: Array, y_BT: Array) -> Array:
    """One update of model and optimizer, in place; the loss before it."""
    value, grads = nnx.value_and_grad(loss)(model, x_BT, y_BT)
    optimizer.update(model, grads)
    return value


def generate(
    model: NnxGPT,
    prompt_BT: Array,
    key: Array,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Array:
    """The prompts and what follows, (B, T + max_new_tokens); temperature 0 is greedy."""
    graphdef, state = nnx.split(model)
    settings = (max_new_tokens, top_k, temperature == 0)
    return _generate(graphdef, state, prompt_BT, key, jnp.float32(temperature or 1.0), settings)


@partial(jax.jit, static_argnames=("graphdef", "settings"))
def _generate(
    graphdef: Any, state: Any, prompt_BT: Array, key: Array, temperature: Array, settings: Any
) -> Array:
    """Prompt at once, then one position at a time, then whole windows where block_size is full."""
    model = nnx.merge(graphdef, state)
    model.eval()  # this one, not the caller's
    new, top_k, greedy = settings
    (B, T), window = prompt_BT.shape, model.block_size
    N = T + new

    def draw(n: Any, logits_BV: Array) -> Array:
        if greedy:
            return logits_BV.argmax(-1)
        if top_k is not None:
            lowest_B1 = jax.lax.top_k(logits_BV, min(top_k, logits_BV.shape[-1]))[0][:, -1:]
            logits_BV = jnp.where(logits_BV < lowest_B1, -jnp.inf, logits_BV)
        return jax.random.categorical(jax.random.fold_in(key, n), logits_BV / temperature)

    def cached(n: Any, carry: Any) -> Any:
        tokens_BN, caches, logits_BV = carry
        token_B = draw(n, logits_BV)
        logits_B1V, caches = model.with_cache(token_B[:, None], caches, n)
        return tokens_BN.at[:, n].set(token_B), caches, logits_B1V[:, -1]

    def whole(n: Any, tokens_BN: Array) -> Array:
        x_BT = jax.lax.dynamic_slice_in_dim(tokens_BN, n - window, window, axis=1)
        return tokens_BN.at[:, n].set(draw(n, model(x_BT)[:, -1]))

    tokens_BN = jnp.pad(prompt_BT, ((0, 0), (0, new)))
    if window > T:
        shape = (B, min(N, window), *model.blocks[0].attn.query.kernel_shape[::2])
        empty = jnp.zeros(shape, model.wte.dtype)
        caches = [(empty, empty)] * len(model.blocks)
        logits_BTV, caches = model.with_cache(prompt_BT, caches, 0)
        carry = (tokens_BN, caches, logits_BTV[:, -1])
        tokens_BN = jax.lax.fori_loop(T, min(N, window), cached, carry)[0]
    if window < N:
        tokens_BN = jax.lax.fori_loop(max(T, window), N, whole, tokens_BN)
    return tokens_BN


def save(path: Path, model: NnxGPT, optimizer: nnx.Optimizer) -> None:
    """All that the two hold, random streams included, by Orbax."""
    state = nnx.to_pure_dict(nnx.state((model, optimizer)))
    ocp.save_checkpointables(str(path.absolute()), {"state": state}, overwrite=True)


def load(path: Path, model: NnxGPT, optimizer: nnx.Optimizer) -> None:
    """Fills both in place; they must be of the configuration that was saved."""
    state = nnx.state((model, optimizer))
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        nnx.to_pure_dict(state),
    )
    loaded = ocp.load_checkpointables(str(path.absolute()), {"state": like})
    nnx.replace_by_pure_dict(state, loaded["state"])
    nnx.update((model, optimizer), state)
