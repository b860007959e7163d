"""The GPT, composed as in the lecture: Head, MultiHeadAttention, FeedForward, Block, GPT.

Arrays carry their shape in their name:

    B  sequences in the batch          C  width of the residual stream (n_embd)
    T  positions in the sequence       D  width of one head (C / H)
    S  positions attended to           H  heads
    V  tokens in the vocabulary

Parameters are always float32. `GPTConfig.dtype` is the dtype of the computation; LayerNorm's
statistics, the softmax and the logits are float32 in any case.

Modules with dropout take its key as an argument; None means no dropout. Linen can derive keys from
module names, but then the keys would change if the blocks were scanned. So block i uses the key
`fold_in(key, i)`, for dropout and for its initial weights.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.config import GPTConfig
from gptjax.layers import (
    ACTIVATIONS,
    Embed,
    Past,
    TiedHead,
    attention_weights,
    dense,
    dropout,
    embed,
    layer_norm,
    weighted_values,
)

Array = jax.Array


class Execution(NamedTuple):
    """How a model is computed on a backend. It changes results only by rounding.

    Attributes:
        attention: a backend's attention without a cache, (q_BTD, k_BTD, v_BTD, drop) to
            (B, T, D); None is the plain one below. `drop(weights, part)` applies dropout to weights
            of any shape; if attention is computed in parts, `part` numbers them. A kernel
            that never stores the weights is for models without dropout. execution.py chooses.
        projection: a backend's product for query, key and value, as `nn.Dense.dot_general`.
        product: the same for the blocks' other dense layers.
        remat: recompute a block's activations in the backward pass instead of keeping them.
        pin: on several devices, the sharding constraint on the residual stream and the logits
            (see sharding.py).
        gather: on several devices, gathers the parameters of a block or of a table of embeddings
            before they are used (see sharding.py).
        blocks: runs the blocks of a model whose parameters are stacked under `blocks` instead of
            `block_0` and so on: (model, their parameters, x_BTC, dropout key) to x_BTC. None runs
            the blocks one after the other.
        by_rows: on several devices, makes each device compute a sum over its own sequences (see
            loss.py and sharding.py).
    """

    attention: Callable[[Array, Array, Array, Callable[..., Array]], Array] | None = None
    projection: Callable[..., Array] | None = None
    product: Callable[..., Array] | None = None
    remat: bool = False
    pin: Callable[[Array], Array] = lambda x_BTC: x_BTC
    gather: Callable[[Any], Any] | None = None
    blocks: Callable[..., Array] | None = None
    by_rows: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None


PLAIN = Execution()


class Head(nn.Module):
    """One head of causal self-attention: (B, T, C) to (B, T, D)."""

    config: GPTConfig
    execution: Execution = PLAIN

    @nn.compact
    def __call__(self, x_BTC: Array, dropout_key: Array | None, past: Past | None = None) -> Array:
        cfg, product = self.config, self.execution.projection

        def project(name: str) -> Array:
            layer = dense(cfg, cfg.head_size, use_bias=cfg.qkv_bias, name=name, product=product)
            return layer(x_BTC)

        q_BTD, k_BTD, v_BTD = project("query"), project("key"), project("value")
        self.sow("intermediates", "kv", (k_BTD, v_BTD))  # read back by cache.py

        def drop(weights_BTS: Array, part: int = 0) -> Array:
            return dropout(weights_BTS, cfg.dropout, fold_in(dropout_key, part))

        if self.execution.attention is not None and past is None:
            return self.execution.attention(q_BTD, k_BTD, v_BTD, drop)
        weights_BTS = drop(attention_weights(q_BTD, k_BTD, past))
        return weighted_values(weights_BTS, v_BTD, past)


def many_heads(
    model_config: GPTConfig,
    x_BTC: Array,
    dropout_key: Array | None,
    past: Past | None = None,
    execution: Execution = PLAIN,
) -> Array:
    """H heads side by side, (B, T, C) to (B, T, H, D).

    `nn.vmap` runs H copies of one head, each with its own parameters and dropout key: the lecture's
    list of heads is one more array axis here, (H, C, D).
    """
    every, own = None, 0  # all heads read the same x; each has its own keys and values
    past_axes = every if past is None else Past._make((own, own, every))
    in_axes: Any = (every, every if dropout_key is None else own, past_axes)
    heads = nn.vmap(
        Head,
        variable_axes={"params": own, "intermediates": own},
        split_rngs={"params": True},
        in_axes=in_axes,
        out_axes=-2,
        axis_size=model_config.n_head,
    )
    keys_H = None if dropout_key is None else jax.random.split(dropout_key, model_config.n_head)
    return heads(model_config, execution, name="heads")(x_BTC, keys_H, past)


class MultiHeadAttention(nn.Module):
    """Heads side by side, then a projection to the residual stream: (B, T, C) to (B, T, C)."""

    config: GPTConfig
    execution: Execution = PLAIN

    @nn.compact
    def __call__(self, x_BTC: Array, dropout_key: Array | None, past: Past | None = None) -> Array:
        cfg = self.config
        y_BTHD = many_heads(cfg, x_BTC, fold_in(dropout_key, 0), past, self.execution)
        y_BTC = y_BTHD.reshape(x_BTC.shape)
        product = self.execution.product
        proj = dense(
            cfg, cfg.n_embd, use_bias=cfg.bias, residual=True, name="proj", product=product
        )
        return dropout(proj(y_BTC), cfg.dropout, fold_in(dropout_key, 1))


class FeedForward(nn.Module):
    """Each position processes what it gathered: C to 4C, activation, back to C."""

    config: GPTConfig
    execution: Execution = PLAIN

    @nn.compact
    def __call__(self, x_BTC: Array, dropout_key: Array | None) -> Array:
        cfg, product = self.config, self.execution.product
        h_BTF = dense(cfg, 4 * cfg.n_embd, use_bias=cfg.bias, name="fc", product=product)(x_BTC)
        h_BTF = ACTIVATIONS[cfg.activation](h_BTF)
        proj = dense(
            cfg, cfg.n_embd, use_bias=cfg.bias, residual=True, name="proj", product=product
        )
        return dropout(proj(h_BTF), cfg.dropout, dropout_key)


class Block(nn.Module):
    """Communication, then computation, each added to the residual stream after a LayerNorm."""

    config: GPTConfig
    execution: Execution = PLAIN

    @nn.compact
    def __call__(self, x_BTC: Array, dropout_key: Array | None, past: Past | None = None) -> Array:
        cfg = self.config
        attn_key, mlp_key = fold_in(dropout_key, 0), fold_in(dropout_key, 1)
        attn = MultiHeadAttention(cfg, self.execution, name="attn")
        mlp = FeedForward(cfg, self.execution, name="mlp")
        x_BTC = x_BTC + attn(layer_norm(cfg, "ln_1")(x_BTC), attn_key, past)
        return x_BTC + mlp(layer_norm(cfg, "ln_2")(x_BTC), mlp_key)


class GPT(nn.Module):
    """Token ids to the logits of the next token at every position.

    Example:
        model = GPT(GPTConfig(block_size=8, n_layer=2, n_head=2, n_embd=16))
        x_BT = jnp.zeros((1, 8), jnp.int32)
        params = model.init(jax.random.key(0), x_BT, deterministic=True)["params"]
        logits_BTV = model.apply({"params": params}, x_BT, deterministic=True)
    """

    config: GPTConfig
    execution: Execution = PLAIN

    @nn.nowrap
    def init(self, rngs: Any, x_BT: Array, **kwargs: Any) -> Any:
        """Like `nn.Module.init`, but block i starts from the key `fold_in(key, i)`.

        Args:
            rngs: a key, or a dict with one of the name `params`.
        """
        # The rest does not depend on the number of blocks: one is traced, and dropped.
        one = GPT(dataclasses.replace(self.config, n_layer=1))
        variables: Any = nn.Module.init(one, rngs, x_BT, **kwargs)["params"]
        rest = {name: tree for name, tree in variables.items() if name != "block_0"}
        n_layer = self.config.n_layer
        key = rngs["params"] if isinstance(rngs, dict) else rngs
        x_BTC = jnp.zeros((1, 1, self.config.n_embd))

        def init_block(i: Array) -> Any:
            return Block(self.config).init(jax.random.fold_in(key, i), x_BTC, None)["params"]

        stacked = jax.vmap(init_block)(jnp.arange(n_layer))
        if self.execution.blocks is not None:
            return {"params": rest | {"blocks": stacked}}
        blocks = {
            f"block_{i}": jax.tree.map(lambda layers, i=i: layers[i], stacked)
            for i in range(n_layer)
        }
        return {"params": rest | blocks}

    @nn.nowrap
    def features(self, params: Any, x_BT: Array, dropout_key: Array | None = None) -> Array:
        """What the output layer reads: x_BTC after the last LayerNorm. Inside `jax.jit`, where the
        logits, which nobody uses, are not computed.
        """
        kept = {"mutable": ["features"]}
        _, found = forward(self, params, x_BT, dropout_key, **kept)
        return found["features"]["x_BTC"][0]

    @nn.compact
    def __call__(
        self, x_BT: Array, *, deterministic: bool, past: tuple[Past, ...] | None = None
    ) -> Array:
        """Logits of the token after each position.

        Args:
            x_BT: int32 ids below vocab_size; T is at most block_size.
            deterministic: no dropout. When False and a dropout rate is above 0, `apply` needs
                `rngs={"dropout": key}`.
            past: for each block, the keys and values of the tokens before x_BT, if there are any:
                x_BT continues where they end, and all together must fit block_size.

        Returns:
            logits_BTV, float32.
        """
        cfg, dropout_key = self.config, key_of_call(self, deterministic)
        T = x_BT.shape[1]
        assert T <= cfg.block_size, f"{T} positions do not fit block_size ({cfg.block_size})"
        make_embed, make_block = self._gathering(Embed), self._gathering(Block)
        wte = embed(cfg, cfg.vocab_size, "wte", make_embed)
        wpe = embed(cfg, cfg.block_size, "wpe", make_embed)
        position_BT = jnp.arange(T)[None]
        if past is not None:
            position_BT = position_BT + past[0].seen_BS.sum(-1, keepdims=True)
        x_BTC = (wte(x_BT) + wpe(position_BT)).astype(cfg.dtype)
        if cfg.embd_dropout:
            x_BTC = dropout(x_BTC, cfg.dropout, fold_in(dropout_key, cfg.n_layer))
        x_BTC = self.execution.pin(x_BTC)
        if self.execution.remat:
            make_block = nn.remat(make_block)
        if self.execution.blocks is not None:
            stacked = self.variables["params"]["blocks"]
            x_BTC = self.execution.blocks(self, stacked, x_BTC, dropout_key)
        for i in range(cfg.n_layer if self.execution.blocks is None else 0):
            block = make_block(cfg, self.execution, name=f"block_{i}")
            x_BTC = block(x_BTC, fold_in(dropout_key, i), past[i] if past else None)
            x_BTC = self.execution.pin(x_BTC)
        x_BTC = layer_norm(cfg, "ln_f")(x_BTC)
        self.sow("features", "x_BTC", x_BTC)  # read back by `features`
        if cfg.tie_embeddings:
            logits_BTV = TiedHead(cfg, name="lm_head")(x_BTC, wte)
        else:
            logits_BTV = dense(cfg, cfg.vocab_size, use_bias=cfg.head_bias, name="lm_head")(x_BTC)
        return self.execution.pin(logits_BTV).astype(jnp.float32)

    def _gathering(self, module: Any) -> Any:
        """A module whose parameters pass through `execution.gather` before they are used."""
        gather = self.execution.gather
        if gather is None or self.is_initializing():
            return module
        return nn.map_variables(module, "params", trans_in_fn=gather)


def key_of_call(model: nn.Module, deterministic: bool) -> Array | None:
    """The key that `apply` was given for dropout; None without dropout."""
    has_dropout = not deterministic and config_of(model).dropout > 0
    return model.make_rng("dropout") if has_dropout else None


def fold_in(key: Array | None, number: int) -> Array | None:
    """`jax.random.fold_in`, for a key that may be None: no dropout then."""
    return None if key is None else jax.random.fold_in(key, number)


def forward(
    model: nn.Module, params: Any, x_BT: Array, dropout_key: Array | None = None, **kwargs: Any
) -> Any:
    """Logits of any module with the GPT's call signature; dropout only if a key is given.

    Args:
        kwargs: passed to `nn.Module.apply`.

    Returns:
        logits_BTV, float32.
    """
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    is_plain = dropout_key is None
    return model.apply({"params": params}, x_BT, deterministic=is_plain, rngs=rngs, **kwargs)


def config_of(model: nn.Module) -> GPTConfig:
    """The configuration of a GPT or a rung; Linen's base class does not know of the field."""
    return model.config  # type: ignore[attr-defined]


def num_params(params: Any) -> int:
    """How many numbers a parameter tree holds."""
    return sum(x.size for x in jax.tree.leaves(params))
