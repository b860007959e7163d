"""Adapts a trained model for sampling: a shorter context, another dtype."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptjax.config import Dtype
from gptjax.errors import ConfigError
from gptjax.model import config_of


def with_block_size(model: nn.Module, params: Any, block_size: int) -> tuple[nn.Module, Any]:
    """Returns the model with a shorter context: keeps the first rows of its position table.

    Raises:
        ConfigError: `block_size` is below 1 or above the model's.
    """
    model_config = config_of(model)
    if not 1 <= block_size <= model_config.block_size:
        rule = f"must be from 1 to the model's ({model_config.block_size})"
        raise ConfigError("block_size", block_size, rule)
    if "wpe" in params:
        params = {**params, "wpe": jax.tree.map(lambda table: table[:block_size], params["wpe"])}
    return _with(model, block_size=block_size), params


def with_dtype(model: nn.Module, params: Any, dtype: Dtype) -> tuple[nn.Module, Any]:
    """Returns the model computing in `dtype`, and its parameters with the matrices stored in it.

    bfloat16 halves the bytes that are read for each token. It changes no result, because the
    computation would round the matrices anyway. A tied token table is the one exception: its rows
    are also the embeddings, which would otherwise stay float32.
    """
    tied = config_of(model).tie_embeddings

    def store(path: Any, x: jax.Array) -> jax.Array:
        names = tuple(key.key for key in path)
        is_read_whole = names[-1] == "kernel" or (tied and names == ("wte", "embedding"))
        return x.astype(jnp.dtype(dtype)) if is_read_whole else x

    return _with(model, dtype=dtype), jax.tree_util.tree_map_with_path(store, params)


def _with(model: nn.Module, **changes: Any) -> nn.Module:
    return model.clone(config=dataclasses.replace(config_of(model), **changes))
