"""The lecture's models, from the bigram table to the GPT: each adds one idea to the one before.

All are called like the GPT, `model.apply({"params": params}, x_BT, deterministic=True)`, and built
from the GPT's own parts. The later rungs are the GPT itself: with LayerNorm in the blocks it is
complete, and only grows. At the end of the file are two variants of the GPT that do not learn a
table of positions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.layers import dense, embed, layer_norm
from gptjax.model import (
    Block,
    FeedForward,
    Head,
    MultiHeadAttention,
    fold_in,
    key_of_call,
    many_heads,
)

Array = jax.Array
# Of the Transformer paper: wavelengths from 2 pi to almost 10,000 times that.
LONGEST = 10_000.0


def like_pytorch(params: Any, key: Array) -> Any:
    """Draws fresh parameters with the default initialisation of PyTorch's layers.

    A table starts at N(0, 1). A linear layer's kernel (..., in, out) and its bias start uniform
    between -1 / sqrt(in) and 1 / sqrt(in). LayerNorm keeps its ones and zeros.
    """
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(sorted(params))}
    if "embedding" in params:
        return {"embedding": jax.random.normal(keys["embedding"], params["embedding"].shape)}
    if "kernel" in params:
        bound = params["kernel"].shape[-2] ** -0.5
        return {
            name: jax.random.uniform(keys[name], array.shape, minval=-bound, maxval=bound)
            for name, array in params.items()
        }
    return {
        name: like_pytorch(part, keys[name]) if isinstance(part, dict) else part
        for name, part in params.items()
    }


class LectureModel(nn.Module):
    """The base of the models before the GPT: its call signature and the initial weights.

    N(0, 0.02) belongs to the GPT, whose residual stream and LayerNorm make it a good start. A
    model without them learns slowly from it, and 5,000 updates do not bring it to the lecture's
    losses; docs/lecture.md has the comparison.

    Attributes:
        pytorch_init: start like PyTorch's layers, as the lecture's models do; else from N(0, 0.02).
    """

    config: GPTConfig
    pytorch_init: bool = True

    @nn.nowrap
    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module.init`."""
        variables = super().init(rngs, *args, **kwargs)
        if not self.pytorch_init:
            return variables
        key = rngs["params"] if isinstance(rngs, dict) else rngs
        return {**variables, "params": like_pytorch(variables["params"], key)}


class Bigram(LectureModel):
    """Row i of the table holds the logits of what follows token i: (B, T) ids to (B, T, V).

    Only `vocab_size` determines its shape. It looks at one token, whatever the context;
    `block_size` only says how the text is cut for training (the lecture, "simplest baseline").
    """

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        V = self.config.vocab_size
        init = nn.initializers.normal(self.config.init_std)
        return nn.Embed(V, V, embedding_init=init, name="table")(x_BT)


class SideBySide(nn.Module):
    """H heads of size C / H, concatenated, without a projection: (B, T, C) to (B, T, C).

    The lecture's first MultiHeadAttention; the projection comes with the residual connections.
    """

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, dropout_key: Array | None) -> Array:
        return many_heads(self.config, x_BTC, dropout_key).reshape(x_BTC.shape)


class OneHead(LectureModel):
    """Tokens look back: one head as wide as the stream, then the output layer."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        x_BTC = embeddings(self.config, x_BT)
        x_BTC = Head(self.config, name="head")(x_BTC, key_of_call(self, deterministic))
        return logits(self.config, x_BTC)


class Heads(LectureModel):
    """Several things to look for at once: `n_head` smaller heads side by side."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        x_BTC = embeddings(self.config, x_BT)
        x_BTC = SideBySide(self.config, name="attn")(x_BTC, key_of_call(self, deterministic))
        return logits(self.config, x_BTC)


class HeadsAndFeedForward(LectureModel):
    """Then each token processes what it gathered: one layer, C to C, and its activation."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        cfg = self.config
        x_BTC = embeddings(cfg, x_BT)
        x_BTC = SideBySide(cfg, name="attn")(x_BTC, key_of_call(self, deterministic))
        x_BTC = nn.relu(dense(cfg, cfg.n_embd, use_bias=cfg.bias, name="mlp")(x_BTC))
        return logits(cfg, x_BTC)


class ResidualBlock(nn.Module):
    """The GPT's block before it had LayerNorm: attention and feed-forward, each added to x."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, dropout_key: Array | None) -> Array:
        cfg = self.config
        attn, mlp = MultiHeadAttention(cfg, name="attn"), FeedForward(cfg, name="mlp")
        x_BTC = x_BTC + attn(x_BTC, fold_in(dropout_key, 0))
        return x_BTC + mlp(x_BTC, fold_in(dropout_key, 1))


class Residual(LectureModel):
    """Depth: `n_layer` blocks on a residual stream, with projections and the fourfold width."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        x_BTC, dropout_key = embeddings(self.config, x_BT), key_of_call(self, deterministic)
        for i in range(self.config.n_layer):
            block = ResidualBlock(self.config, name=f"block_{i}")
            x_BTC = block(x_BTC, fold_in(dropout_key, i))
        return logits(self.config, x_BTC)


def embeddings(cfg: GPTConfig, x_BT: Array) -> Array:
    """Token embedding plus position embedding: ids (B, T) to (B, T, C), under the GPT's names."""
    T = x_BT.shape[1]
    assert T <= cfg.block_size, f"{T} positions do not fit block_size ({cfg.block_size})"
    wte, wpe = embed(cfg, cfg.vocab_size, "wte"), embed(cfg, cfg.block_size, "wpe")
    return wte(x_BT) + wpe(jnp.arange(T))[None]


def logits(cfg: GPTConfig, x_BTC: Array) -> Array:
    """The output layer, under the GPT's name: (B, T, C) to float32 (B, T, V)."""
    head = dense(cfg, cfg.vocab_size, use_bias=cfg.head_bias, name="lm_head")
    return head(x_BTC).astype(jnp.float32)


def sinusoids(T: int, C: int) -> np.ndarray:
    """The Transformer paper's table: sines and cosines of the position, slower from left to right.

    Column 2i holds sin(t / 10000^(2i / C)) and column 2i + 1 the cosine, so that the row of t + k
    is a rotation of the row of t that depends only on k ("Attention is all you need", section
    3.5).

    Returns:
        float32 (T, C).

    Raises:
        InputError: C is odd, so that a cosine would be missing.
    """
    if C % 2:
        raise InputError(f"the width of a table of sinusoids ({C}) must be even")
    angles_TP = np.arange(T)[:, None] / LONGEST ** (np.arange(0, C, 2) / C)[None, :]
    return np.stack([np.sin(angles_TP), np.cos(angles_TP)], axis=-1).reshape(T, C).astype("f4")


class WithoutPositions(nn.Module):
    """The GPT without its table of positions: the past is a bag of tokens to its first block."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        x_BTC = embed(self.config, self.config.vocab_size, "wte")(x_BT)
        return Trunk(self.config, name="trunk")(x_BTC, key_of_call(self, deterministic))


class Sinusoids(nn.Module):
    """The GPT with a fixed table of sinusoids in place of the learned one.

    The table is scaled to the N(0, 0.02) of the token table. Unscaled, at about 0.7, it would drown
    out the tokens.
    """

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        cfg = self.config
        table_TC = jnp.asarray(sinusoids(x_BT.shape[1], cfg.n_embd)) * (0.02 * 2**0.5)
        x_BTC = embed(cfg, cfg.vocab_size, "wte")(x_BT) + table_TC[None]
        return Trunk(cfg, name="trunk")(x_BTC, key_of_call(self, deterministic))


class Trunk(nn.Module):
    """What the GPT does after its embeddings: (B, T, C) to float32 logits (B, T, V)."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, dropout_key: Array | None) -> Array:
        cfg = self.config
        for i in range(cfg.n_layer):
            x_BTC = Block(cfg, name=f"block_{i}")(x_BTC, fold_in(dropout_key, i))
        x_BTC = layer_norm(cfg, "ln_f")(x_BTC)
        head = dense(cfg, cfg.vocab_size, use_bias=cfg.head_bias, name="lm_head")
        return head(x_BTC).astype(jnp.float32)


# By `RunConfig.model_name`, which is also the preset's.
RUNGS: dict[str, Callable[[GPTConfig], nn.Module]] = {
    "bigram": Bigram,
    "head": OneHead,
    "multihead": Heads,
    "feedforward": HeadsAndFeedForward,
    "residual": Residual,
}

# What the walk-through compares with a rung: the same models from N(0, 0.02), and the GPT with
# other positions than a learned table.
VARIANTS: dict[str, Callable[[GPTConfig], nn.Module]] = {
    "head-normal": partial(OneHead, pytorch_init=False),
    "multihead-normal": partial(Heads, pytorch_init=False),
    "feedforward-normal": partial(HeadsAndFeedForward, pytorch_init=False),
    "residual-normal": partial(Residual, pytorch_init=False),
    "sinusoids": Sinusoids,
    "without-positions": WithoutPositions,
}
