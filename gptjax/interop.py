"""Weights from and to other implementations: the lecture's, nanoGPT's, Hugging Face's GPT-2.

    config, params = from_lecture(model.state_dict())
    logits_BTV = GPT(config).apply({"params": params}, x_BT, deterministic=True)

A state dict is a mapping of the original's parameter names to arrays or PyTorch tensors. Names may
carry the prefixes that wrappers add (`transformer.`, `_orig_mod.`), and causal masks that were
saved among the weights are ignored. Each `to_*` is the inverse of its `from_*`.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from gptjax.config import Activation, GPTConfig
from gptjax.errors import InputError
from gptjax.layouts import Slot, gpt2_layout, lecture_layout
from gptjax.model import GPT
from gptjax.training import init_params

PREFIXES = ("_orig_mod.", "transformer.")
BUFFERS = re.compile(r"\.tril$|\.attn\.(bias|masked_bias)$")

# What each original is, in our configuration; what is not named here, weights do not tell.
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
    """Weights of the lecture's GPTLanguageModel, whose heads are a list of modules.

    Args:
        dropout: for training on; weights do not tell it.

    Raises:
        InputError: an entry is unknown, missing or of the wrong shape; it names the entry.
    """
    entries = _entries(state_dict)
    V, C, T = _sizes(entries, "token_embedding_table.weight", "position_embedding_table.weight")
    config = GPTConfig(
        vocab_size=V,
        block_size=T,
        n_layer=_count(entries, r"blocks\.(\d+)\."),
        n_head=_count(entries, r"blocks\.0\.sa\.heads\.(\d+)\."),
        n_embd=C,
        dropout=dropout,
        **LECTURE,
    )
    return config, _load(config, lecture_layout(config), entries)


def from_nanogpt(
    state_dict: Mapping[str, Any], *, n_head: int, dropout: float = 0.0
) -> tuple[GPTConfig, dict[str, Any]]:
    """Weights of nanoGPT's GPT, with or without biases, its output layer tied or absent.

    Args:
        n_head: heads per block, which the fused projection does not show.
        dropout: for training on; weights do not tell it.

    Raises:
        InputError: as `from_lecture`; or n_head does not divide the width.
    """
    return _from_gpt2(state_dict, n_head, NANOGPT_ACTIVATION, dropout, conv1d=False)


def from_huggingface(
    state_dict: Mapping[str, Any],
    *,
    n_head: int,
    activation: Activation = HUGGINGFACE_ACTIVATION,
    dropout: float = 0.0,
) -> tuple[GPTConfig, dict[str, Any]]:
    """Weights of Hugging Face's GPT2LMHeadModel, whose linear layers are (in, out).

    Args:
        n_head: heads per block, which the fused projection does not show.
        activation: GPT-2's own unless the folder's config.json says otherwise.
        dropout: for training on; weights do not tell it.

    Raises:
        InputError: as `from_nanogpt`.
    """
    return _from_gpt2(state_dict, n_head, activation, dropout, conv1d=True)


def to_lecture(config: GPTConfig, params: Any) -> dict[str, np.ndarray]:
    """A state dict for the lecture's GPTLanguageModel, its masks (`tril`) included.

    Raises:
        InputError: the lecture's model cannot be of this configuration, or the parameters are not.
    """
    _require(config, "the lecture's model", **LECTURE)
    entries = _dump(config, lecture_layout(config), params)
    mask_TT = np.tril(np.ones((config.block_size, config.block_size), np.float32))
    for i in range(config.n_layer):
        for h in range(config.n_head):
            entries[f"blocks.{i}.sa.heads.{h}.tril"] = mask_TT
    return entries


def to_nanogpt(config: GPTConfig, params: Any) -> dict[str, np.ndarray]:
    """A state dict for nanoGPT's GPT.

    Raises:
        InputError: as `to_lecture`.
    """
    _require(
        config,
        "nanoGPT's model",
        activation=NANOGPT_ACTIVATION,
        qkv_bias=config.bias,
        ln_bias=config.bias,
        head_bias=False,
    )
    return to_torch(config, params)


def to_huggingface(config: GPTConfig, params: Any) -> dict[str, np.ndarray]:
    """A state dict for Hugging Face's GPT2LMHeadModel.

    Raises:
        InputError: as `to_lecture`.
    """
    _require(
        config, "Hugging Face's GPT-2", qkv_bias=True, bias=True, ln_bias=True, head_bias=False
    )
    return _to_gpt2(config, params, conv1d=True)


def to_torch(config: GPTConfig, params: Any) -> dict[str, np.ndarray]:
    """The names of nanoGPT for a GPT of any configuration: what compare/torch_gpt.py loads.

    Raises:
        InputError: the parameters are not of this configuration.
    """
    return _to_gpt2(config, params, conv1d=False)


def _from_gpt2(
    state_dict: Mapping[str, Any], n_head: int, activation: Activation, dropout: float, conv1d: bool
) -> tuple[GPTConfig, dict[str, Any]]:
    entries = _entries(state_dict)
    V, C, T = _sizes(entries, "wte.weight", "wpe.weight")
    head, table = entries.get("lm_head.weight"), entries["wte.weight"]
    tied = head is None or np.array_equal(head, table)
    if tied:
        entries.pop("lm_head.weight", None)
    biases = any(name.endswith(".bias") for name in entries)
    config = GPTConfig(
        vocab_size=V,
        block_size=T,
        n_layer=_count(entries, r"h\.(\d+)\."),
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
    return config, _load(config, gpt2_layout(config, conv1d), entries)


def _to_gpt2(config: GPTConfig, params: Any, conv1d: bool) -> dict[str, np.ndarray]:
    entries = _dump(config, gpt2_layout(config, conv1d), params)
    if config.tie_embeddings:
        entries["lm_head.weight"] = entries["wte.weight"]
    return {
        name if name.startswith("lm_head.") else f"transformer.{name}": array
        for name, array in entries.items()
    }


def _entries(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict without prefixes and masks, as float32 arrays."""
    entries: dict[str, np.ndarray] = {}
    for given, value in state_dict.items():
        name = given
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if BUFFERS.search(name):
            continue
        if name in entries:
            raise InputError(f"the state dict has two entries for {name}, one of them {given}")
        entries[name] = _float32(given, value)
    return entries


def _float32(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, on any device and of any float type
        value = value.detach().float().cpu().numpy()
    array = np.asarray(value)
    if not jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
        raise InputError(f"entry {name} of the state dict is {array.dtype}: floats are expected")
    return array.astype(np.float32)


def _sizes(entries: dict[str, np.ndarray], tokens: str, positions: str) -> tuple[int, int, int]:
    """Vocabulary, width and context, from the two tables."""
    for name in (tokens, positions):
        if name not in entries:
            there = ", ".join(sorted(entries)[:3]) or "none"
            raise InputError(f"the state dict has no entry {name}; its entries begin with: {there}")
        if entries[name].ndim != 2:
            raise InputError(f"entry {name} has shape {entries[name].shape}: it must be a table")
    return *entries[tokens].shape, len(entries[positions])  # type: ignore[return-value]


def _count(entries: dict[str, np.ndarray], pattern: str) -> int:
    """How many different numbers the names hold where the pattern has its group."""
    found = {match[1] for name in entries if (match := re.match(pattern, name))}
    if not found:
        raise InputError(f"the state dict has no entry like {pattern.replace(chr(92), '')}")
    return len(found)


def _load(config: GPTConfig, layout: list[Slot], entries: dict[str, np.ndarray]) -> dict[str, Any]:
    """Our parameter tree, once every entry is known to be there, to fit and to be expected."""
    shapes = _shapes(config)
    ours: dict[str, Any] = {}
    left = dict(entries)
    for slot in layout:
        expected = slot.dump(*(np.broadcast_to(np.float32(0), shapes[path]) for path in slot.ours))
        for name, like in zip(slot.theirs, expected, strict=True):
            if name not in left:
                raise InputError(f"the state dict has no entry {name}")
            if left[name].shape != like.shape:
                raise InputError(
                    f"entry {name} has shape {left[name].shape}, and {like.shape} is expected"
                )
        arrays = slot.load(*(left.pop(name) for name in slot.theirs))
        ours |= dict(zip(slot.ours, map(jax.numpy.asarray, arrays), strict=True))
    if left:
        raise InputError(f"the state dict has an unknown entry {sorted(left)[0]}")
    return traverse_util.unflatten_dict(ours, sep="/")


def _dump(config: GPTConfig, layout: list[Slot], params: Any) -> dict[str, np.ndarray]:
    """Their entries, once the tree is known to be the configuration's."""
    ours = {p: np.asarray(a) for p, a in traverse_util.flatten_dict(params, sep="/").items()}
    shapes = _shapes(config)
    for path in sorted(shapes.keys() | ours.keys()):
        found = ours[path].shape if path in ours else "missing"
        if found != shapes.get(path, "unknown"):
            raise InputError(
                f"parameter {path} is {found}, and in this configuration {shapes.get(path)}"
            )
    entries: dict[str, np.ndarray] = {}
    for slot in layout:
        arrays = slot.dump(*(ours[path] for path in slot.ours))
        # Transposed views would keep their strides in PyTorch and trip safetensors.
        contiguous = (np.array(array, order="C") for array in arrays)
        entries |= dict(zip(slot.theirs, contiguous, strict=True))
    return entries


def _shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Our parameters' shapes by path."""
    tree = jax.eval_shape(lambda key: init_params(GPT(config), key), jax.random.key(0))
    return {path: x.shape for path, x in traverse_util.flatten_dict(tree, sep="/").items()}


def _require(config: GPTConfig, whose: str, **fields: Any) -> None:
    for name, value in fields.items():
        if getattr(config, name) != value:
            raise InputError(f"{name} ({getattr(config, name)}) must be {value} for {whose}")
