"""Where a token stands: a learned table, fixed sinusoids, or nothing at all."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.layers import dense, embed, layer_norm
from gptjax.model import Block

Array = jax.Array
# Of the Transformer paper: wavelengths from 2 pi to almost 10,000 times that.
LONGEST = 10_000.0


def sinusoids(T: int, C: int) -> np.ndarray:
    """The Transformer paper's table: sines and cosines of position, slower from left to right.

    Column 2i holds sin(t / 10000^(2i / C)) and column 2i + 1 the cosine, so that the row of t + k
    is a rotation of the row of t that depends on k alone ("Attention is all you need", section
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
        return Trunk(self.config, name="trunk")(x_BTC, deterministic=deterministic)


class Sinusoids(nn.Module):
    """The GPT with a fixed table of sinusoids in place of the learned one.

    The table is scaled to the N(0, 0.02) of the token table: at its own height, about 0.7, it
    would drown the tokens.
    """

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        cfg = self.config
        table_TC = jnp.asarray(sinusoids(x_BT.shape[1], cfg.n_embd)) * (0.02 * 2**0.5)
        x_BTC = embed(cfg, cfg.vocab_size, "wte")(x_BT) + table_TC[None]
        return Trunk(cfg, name="trunk")(x_BTC, deterministic=deterministic)


class Trunk(nn.Module):
    """What the GPT does after its embeddings: (B, T, C) to float32 logits (B, T, V)."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTC: Array, *, deterministic: bool) -> Array:
        cfg = self.config
        for i in range(cfg.n_layer):
            x_BTC = Block(cfg, name=f"block_{i}")(x_BTC, deterministic=deterministic)
        x_BTC = layer_norm(cfg, "ln_f")(x_BTC)
        head = dense(cfg, cfg.vocab_size, use_bias=cfg.head_bias, name="lm_head")
        return head(x_BTC).astype(jnp.float32)
