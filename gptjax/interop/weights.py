"""Reads and writes the weights of each implementation, and describes it in our configuration.

A state dict is a mapping of the original's parameter names to arrays or PyTorch tensors. Names may
have the prefixes that wrappers add (`transformer.`, `module.`, `_orig_mod.`). Causal masks that
were saved among the weights are ignored. Each `to_*` is the inverse of its `from_*`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gptjax.config import Activation, GPTConfig
from gptjax.errors import InputError
from gptjax.interop.layouts import gpt2_layout, lecture_layout
from gptjax.interop.state_dicts import count, read_entries, table_sizes, to_entries, to_params

# The settings of our configuration that describe the lecture's model.
LECTURE: dict[str, Any] = {
    "activation": "relu",
    "qkv_bias": False,
    "bias": True,
    "ln_bias": True,
    "tie_embeddings": False,
    "head_bias": True,
}
NANOGPT_ACTIVATION: Activation = "gelu"
HUGGINGFACE_ACTIVATION: Activation = "gelu_tanh"


def from_lecture(
    state_dict: Mapping[str, Any], *, dropout: float = 0.0
) -> tuple[GPTConfig, dict[str, Any]]:
    """Reads weights of the lecture's GPTLanguageModel, whose heads are a list of modules.

    Args:
        dropout: for further training; it cannot be read from the weights.

    Raises:
        InputError: an entry is unknown, missing or of the wrong shape; the message names it.
    """
    entries = read_entries(state_dict)
    V, C, T = table_sizes(
        entries, "token_embedding_table.weight", "position_embedding_table.weight"
    )
    model_config = GPTConfig(
        vocab_size=V,
        block_size=T,
        n_layer=count(entries, r"blocks\.(\d+)\."),
        n_head=count(entries, r"blocks\.0\.sa\.heads\.(\d+)\."),
        n_embd=C,
        dropout=dropout,
        **LECTURE,
    )
    return model_config, to_params(model_config, lecture_layout(model_config), entries)


def from_nanogpt(
    state_dict: Mapping[str, Any],
    *,
    n_head: int,
    activation: Activation = NANOGPT_ACTIVATION,
    dropout: float = 0.0,
) -> tuple[GPTConfig, dict[str, Any]]:
    """Reads weights of nanoGPT's GPT, with or without biases; its output layer is tied or absent.

    Args:
        n_head: heads per block; the fused projection does not show their number.
        activation: nanoGPT's `gelu`, or `gelu_tanh`, with which build-nanogpt's weights are
            trained. It cannot be read from the weights.
        dropout: for further training; it cannot be read from the weights.

    Raises:
        InputError: as in `from_lecture`; or n_head does not divide the width, or the activation is
            another.
    """
    _check_gelu(activation)
    return _from_gpt2(state_dict, n_head, activation, dropout, conv1d=False)


def from_huggingface(
    state_dict: Mapping[str, Any],
    *,
    n_head: int,
    activation: Activation = HUGGINGFACE_ACTIVATION,
    dropout: float = 0.0,
) -> tuple[GPTConfig, dict[str, Any]]:
    """Reads weights of Hugging Face's GPT2LMHeadModel, whose linear layers are (in, out).

    Args:
        n_head: heads per block; the fused projection does not show their number.
        activation: GPT-2's own, unless the folder's config.json has another.
        dropout: for further training; it cannot be read from the weights.

    Raises:
        InputError: as in `from_nanogpt`.
    """
    return _from_gpt2(state_dict, n_head, activation, dropout, conv1d=True)


def to_lecture(model_config: GPTConfig, params: Any) -> dict[str, np.ndarray]:
    """Makes a state dict for the lecture's GPTLanguageModel, including its masks (`tril`).

    Raises:
        InputError: the lecture's model cannot have this configuration, or the parameters do not
            fit it.
    """
    _require(model_config, "the lecture's model", **LECTURE)
    entries = to_entries(model_config, lecture_layout(model_config), params)
    mask_TT = np.tril(np.ones((model_config.block_size, model_config.block_size), np.float32))
    for i in range(model_config.n_layer):
        for h in range(model_config.n_head):
            entries[f"blocks.{i}.sa.heads.{h}.tril"] = mask_TT
    return entries


def to_nanogpt(
    model_config: GPTConfig, params: Any, *, activation: Activation = NANOGPT_ACTIVATION
) -> dict[str, np.ndarray]:
    """Makes a state dict for nanoGPT's GPT.

    Args:
        activation: of the model that will load the state dict, as in `from_nanogpt`.

    Raises:
        InputError: as in `to_lecture`.
    """
    _check_gelu(activation)
    _require(
        model_config,
        "nanoGPT's model",
        activation=activation,
        qkv_bias=model_config.bias,
        ln_bias=model_config.bias,
        head_bias=False,
    )
    return to_torch(model_config, params)


def to_huggingface(model_config: GPTConfig, params: Any) -> dict[str, np.ndarray]:
    """Makes a state dict for Hugging Face's GPT2LMHeadModel.

    Raises:
        InputError: as in `to_lecture`.
    """
    _require(
        model_config,
        "Hugging Face's GPT-2",
        qkv_bias=True,
        bias=True,
        ln_bias=True,
        head_bias=False,
    )
    return _to_gpt2(model_config, params, conv1d=True)


def to_torch(model_config: GPTConfig, params: Any) -> dict[str, np.ndarray]:
    """Makes a state dict with nanoGPT's names for any GPT; compare/torch_gpt.py loads it.

    Raises:
        InputError: the parameters do not fit the configuration.
    """
    return _to_gpt2(model_config, params, conv1d=False)


def _from_gpt2(
    state_dict: Mapping[str, Any], n_head: int, activation: Activation, dropout: float, conv1d: bool
) -> tuple[GPTConfig, dict[str, Any]]:
    entries = read_entries(state_dict)
    V, C, T = table_sizes(entries, "wte.weight", "wpe.weight")
    head, table = entries.get("lm_head.weight"), entries["wte.weight"]
    tied = head is None or np.array_equal(head, table)
    if tied:
        entries.pop("lm_head.weight", None)
    biases = any(name.endswith(".bias") for name in entries)
    model_config = GPTConfig(
        vocab_size=V,
        block_size=T,
        n_layer=count(entries, r"h\.(\d+)\."),
        n_head=n_head,
        n_embd=C,
        dropout=dropout,
        activation=activation,
        qkv_bias=biases,
        bias=biases,
        ln_bias=biases,
        tie_embeddings=tied,
        head_bias=False,
        scaled_residual_init=True,
        embd_dropout=True,
    )
    return model_config, to_params(model_config, gpt2_layout(model_config, conv1d), entries)


def _to_gpt2(model_config: GPTConfig, params: Any, conv1d: bool) -> dict[str, np.ndarray]:
    entries = to_entries(model_config, gpt2_layout(model_config, conv1d), params)
    if model_config.tie_embeddings:
        entries["lm_head.weight"] = entries["wte.weight"]
    return {
        name if name.startswith("lm_head.") else f"transformer.{name}": array
        for name, array in entries.items()
    }


def _check_gelu(activation: str) -> None:
    if activation not in ("gelu", "gelu_tanh"):
        raise InputError(f"activation ({activation}) must be gelu or gelu_tanh for nanoGPT's model")


def _require(model_config: GPTConfig, whose: str, **fields: Any) -> None:
    for name, value in fields.items():
        if getattr(model_config, name) != value:
            raise InputError(f"{name} ({getattr(model_config, name)}) must be {value} for {whose}")
