"""Reads and writes state dicts: strips prefixes, checks shapes, names the entry in errors.

This module is the same for all originals. weights.py describes each original, and layouts.py maps
its entries to our parameters.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.interop.layouts import Slot
from gptjax.model import GPT
from gptjax.training import init_params

# Prefixes that wrappers add (DDP, Lightning, a language model around its transformer). There may be
# several, in any order.
PREFIXES = re.compile(r"^((module|model|transformer)\.)+")
# Parts of names that torch.compile, FSDP and activation checkpointing insert.
WRAPPERS = re.compile(r"(?:^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Causal masks that were saved among the weights.
BUFFERS = re.compile(r"\.tril$|\.attn\.(bias|masked_bias)$")


def read_entries(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the state dict without prefixes and masks, as float32 arrays.

    Raises:
        InputError: two names are equal without their prefixes, or an entry is not an array of
            floats.
    """
    inner = [name for name, value in state_dict.items() if isinstance(value, Mapping)]
    if inner:
        name = "model" if "model" in inner else inner[0]
        raise InputError(
            f"entry {name} of the state dict is a dictionary: this is a whole checkpoint; pass "
            f"checkpoint[{name!r}], its weights"
        )
    entries: dict[str, np.ndarray] = {}
    for given, value in state_dict.items():
        name = PREFIXES.sub("", WRAPPERS.sub("", given))
        if BUFFERS.search(name):
            continue
        if name in entries:
            raise InputError(f"the state dict has two entries for {name}, one of them {given}")
        entries[name] = _float32(given, value)
    return entries


def _float32(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, on any device and with any float dtype
        value = value.detach().float().cpu().numpy()
    array = np.asarray(value)
    if not jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
        raise InputError(f"entry {name} of the state dict is {array.dtype}, but must be floats")
    return array.astype(np.float32)


def table_sizes(
    entries: dict[str, np.ndarray], tokens: str, positions: str
) -> tuple[int, int, int]:
    """Returns vocabulary size, width and context, from the token table and the position table.

    Raises:
        InputError: a table is missing, as in another architecture, or has another number of axes.
    """
    for name in (tokens, positions):
        if name not in entries:
            there = ", ".join(sorted(entries)[:3]) or "none"
            raise InputError(f"the state dict has no entry {name}; its entries begin with: {there}")
        if entries[name].ndim != 2:
            raise InputError(f"entry {name} has shape {entries[name].shape}, but must have 2 axes")
    return *entries[tokens].shape, len(entries[positions])  # type: ignore[return-value]


def count(entries: dict[str, np.ndarray], pattern: str) -> int:
    """Counts the different numbers that the pattern's group matches in the names.

    Raises:
        InputError: no name matches.
    """
    found = {match[1] for name in entries if (match := re.match(pattern, name))}
    if not found:
        raise InputError(f"the state dict has no entry like {pattern.replace(chr(92), '')}")
    return len(found)


def to_params(
    model_config: GPTConfig, layout: list[Slot], entries: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Converts entries to our parameter tree, after checking that exactly these are expected.

    Raises:
        InputError: an entry is missing, unknown or of the wrong shape; the message names it.
    """
    shapes = _shapes(model_config)
    ours: dict[str, Any] = {}
    left = dict(entries)
    for slot in layout:
        expected = slot.dump(*(np.broadcast_to(np.float32(0), shapes[path]) for path in slot.ours))
        for name, like in zip(slot.theirs, expected, strict=True):
            if name not in left:
                raise InputError(f"the state dict has no entry {name}")
            if left[name].shape != like.shape:
                raise InputError(
                    f"entry {name} has shape {left[name].shape}, but {like.shape} is expected"
                )
        arrays = slot.load(*(left.pop(name) for name in slot.theirs))
        ours |= dict(zip(slot.ours, map(jax.numpy.asarray, arrays), strict=True))
    if left:
        raise InputError(f"the state dict has an unknown entry {sorted(left)[0]}")
    return traverse_util.unflatten_dict(ours, sep="/")


def to_entries(model_config: GPTConfig, layout: list[Slot], params: Any) -> dict[str, np.ndarray]:
    """Converts our parameter tree to entries, after checking that it fits the configuration.

    Raises:
        InputError: a parameter is missing, unknown or of the wrong shape; the message names it.
    """
    ours = {p: np.asarray(a) for p, a in traverse_util.flatten_dict(params, sep="/").items()}
    shapes = _shapes(model_config)
    for path in sorted(shapes.keys() | ours.keys()):
        found = ours[path].shape if path in ours else "missing"
        if found != shapes.get(path, "unknown"):
            raise InputError(
                f"parameter {path} is {found}, but this configuration has {shapes.get(path)}"
            )
    entries: dict[str, np.ndarray] = {}
    for slot in layout:
        arrays = slot.dump(*(ours[path] for path in slot.ours))
        # Copy transposed views: PyTorch would keep their strides, and safetensors would fail.
        contiguous = (np.array(array, order="C") for array in arrays)
        entries |= dict(zip(slot.theirs, contiguous, strict=True))
    return entries


@functools.lru_cache(maxsize=8)
def _shapes(model_config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of our parameters by path."""
    tree: Any = jax.eval_shape(lambda key: init_params(GPT(model_config), key), jax.random.key(0))
    flat: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
    return {path: x.shape for path, x in flat.items()}
