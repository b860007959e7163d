"""Converts gptjax's parameter tree to each design's own names, and back.

The native forms are flat, `{path: array}`, so a contestant's process can read them from .npz files
without importing gptjax.
"""

import re
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from gptjax import interop
from gptjax.config import GPTConfig, RunConfig
from gptjax.interop.layouts import gpt2_layout
from gptjax.interop.state_dicts import to_params
from gptjax.model import GPT
from gptjax.training import init_params, make_keys

Arrays = dict[str, np.ndarray]


def shared_params(run_config: RunConfig) -> Any:
    """The parameters from which all start: this project's, from the configuration's seed."""
    key = make_keys(run_config.seed).params
    return jax.jit(lambda key: init_params(GPT(run_config.model), key))(key)


def to_native(design: str, model_config: GPTConfig, params: Any) -> Arrays:
    """Converts a parameter tree to a design's names and shapes."""
    if design == "torch":
        entries = interop.to_torch(model_config, params)
        if model_config.tie_embeddings:
            del entries["lm_head.weight"]  # PyTorch has one parameter under two names
        return {name.removeprefix("transformer."): a for name, a in entries.items()}
    flat = {path: np.asarray(a) for path, a in traverse_util.flatten_dict(params, sep="/").items()}
    return {_to_nnx(model_config, path): a for path, a in flat.items()} if design == "nnx" else flat


def from_native(design: str, model_config: GPTConfig, arrays: Arrays) -> Any:
    """The inverse of `to_native`; also for gradients, which have the weights' names and shapes."""
    if design == "torch":
        return to_params(model_config, gpt2_layout(model_config, conv1d=False), dict(arrays))
    if design == "nnx":
        ours = traverse_util.flatten_dict(shapes(model_config), sep="/")
        arrays = {path: arrays[_to_nnx(model_config, path)] for path in ours}
    return traverse_util.unflatten_dict(dict(arrays), sep="/")


def shapes(model_config: GPTConfig) -> Any:
    """The shapes of the parameter tree, without computing it."""
    return jax.eval_shape(lambda key: init_params(GPT(model_config), key), jax.random.key(0))


def _to_nnx(model_config: GPTConfig, path: str) -> str:
    if model_config.tie_embeddings and path == "lm_head/bias":
        return "head_bias"
    return re.sub(r"^block_(\d+)/", r"blocks/\1/", path).replace("attn/heads/", "attn/")
