"""One set of weights for all: from gptjax's parameter tree to each contestant's names, and back.

Trees and their native forms are flat here, `{path: array}`: they are stored as .npz files, which a
contestant's process reads without importing gptjax.
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


def shared_params(config: RunConfig) -> Any:
    """The parameters that all start from: those of a run of this project with the same seed."""
    key = make_keys(config.seed).params
    return jax.jit(lambda key: init_params(GPT(config.model), key))(key)


def to_native(name: str, config: GPTConfig, params: Any) -> Arrays:
    """A parameter tree under the names and in the shapes of the contestant `name`."""
    if name == "torch":
        entries = interop.to_torch(config, params)
        if config.tie_embeddings:
            del entries["lm_head.weight"]  # PyTorch has one parameter under two names
        return {name.removeprefix("transformer."): a for name, a in entries.items()}
    flat = {path: np.asarray(a) for path, a in traverse_util.flatten_dict(params, sep="/").items()}
    return {_to_nnx(config, path): a for path, a in flat.items()} if name == "nnx" else flat


def from_native(name: str, config: GPTConfig, arrays: Arrays) -> Any:
    """The inverse of `to_native`: also of gradients, which have the weights' names and shapes."""
    if name == "torch":
        return to_params(config, gpt2_layout(config, conv1d=False), dict(arrays))
    if name == "nnx":
        ours = traverse_util.flatten_dict(shapes(config), sep="/")
        arrays = {path: arrays[_to_nnx(config, path)] for path in ours}
    return traverse_util.unflatten_dict(dict(arrays), sep="/")


def shapes(config: GPTConfig) -> Any:
    """The tree's shapes; nothing is computed."""
    return jax.eval_shape(lambda key: init_params(GPT(config), key), jax.random.key(0))


def _to_nnx(config: GPTConfig, path: str) -> str:
    if config.tie_embeddings and path == "lm_head/bias":
        return "head_bias"
    return re.sub(r"^block_(\d+)/", r"blocks/\1/", path).replace("attn/heads/", "attn/")
