"""The models between the bigram table and the GPT, each the one before it and one idea more.

All are called as the GPT is, `model.apply({"params": params}, x_BT, deterministic=True)`, and made
of the GPT's own parts. The rungs after the last of these are the GPT itself: with LayerNorm in the
blocks it is complete, and only grows.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.config import GPTConfig
from gptjax.layers import dense, embed
from gptjax.lecture.bigram import Bigram
from gptjax.lecture.initial import LectureModel
from gptjax.lecture.positions import Sinusoids, WithoutPositions
from gptjax.model import FeedForward, Head, MultiHeadAttention, many_heads

Array = jax.Array


class SideBySide(nn.Module):
    """H heads, concatenated and nothing after them: (B, T, C) to itself, H heads of C / H each.

    The lecture's first MultiHeadAttention; the projection comes with the residual connections.
    """

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, *, deterministic: bool) -> Array:
        return many_heads(self.config, x_BTC, deterministic).reshape(x_BTC.shape)


class OneHead(LectureModel):
    """Tokens look back: one head as wide as the stream, then the output layer."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        x_BTC = embeddings(self.config, x_BT)
        x_BTC = Head(self.config, name="head")(x_BTC, deterministic)
        return logits(self.config, x_BTC)


class Heads(LectureModel):
    """Several things to look for at once: `n_head` smaller heads side by side."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        x_BTC = embeddings(self.config, x_BT)
        x_BTC = SideBySide(self.config, name="attn")(x_BTC, deterministic=deterministic)
        return logits(self.config, x_BTC)


class HeadsAndFeedForward(LectureModel):
    """Then each token thinks on what it gathered: one layer, C to C, and its activation."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        cfg = self.config
        x_BTC = embeddings(cfg, x_BT)
        x_BTC = SideBySide(cfg, name="attn")(x_BTC, deterministic=deterministic)
        x_BTC = nn.relu(dense(cfg, cfg.n_embd, use_bias=cfg.bias, name="mlp")(x_BTC))
        return logits(cfg, x_BTC)


class ResidualBlock(nn.Module):
    """The GPT's block before it had LayerNorm: attention and feed-forward, each added to x."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, *, deterministic: bool) -> Array:
        cfg = self.config
        attn, mlp = MultiHeadAttention(cfg, name="attn"), FeedForward(cfg, name="mlp")
        x_BTC = x_BTC + attn(x_BTC, deterministic=deterministic)
        return x_BTC + mlp(x_BTC, deterministic=deterministic)


class Residual(LectureModel):
    """Depth: `n_layer` blocks on a residual stream, with projections and the fourfold width."""

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        x_BTC = embeddings(self.config, x_BT)
        for i in range(self.config.n_layer):
            block = ResidualBlock(self.config, name=f"block_{i}")
            x_BTC = block(x_BTC, deterministic=deterministic)
        return logits(self.config, x_BTC)


def embeddings(cfg: GPTConfig, x_BT: Array) -> Array:
    """What a token is plus where it stands: ids (B, T) to (B, T, C), under the GPT's names."""
    T = x_BT.shape[1]
    assert T <= cfg.block_size, f"{T} positions do not fit block_size ({cfg.block_size})"
    wte, wpe = embed(cfg, cfg.vocab_size, "wte"), embed(cfg, cfg.block_size, "wpe")
    return wte(x_BT) + wpe(jnp.arange(T))[None]


def logits(cfg: GPTConfig, x_BTC: Array) -> Array:
    """The output layer, under the GPT's name: (B, T, C) to float32 (B, T, V)."""
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
