"""Maps our parameters to the entries of other implementations, and back.

Our kernels are (in, out), and heads have an axis of their own: (H, C, D). PyTorch's linear layers
are (out, in). The lecture has a module for each head. GPT-2 has one projection for query, key and
value of all heads.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gptjax.config import GPTConfig

Arrays = tuple[np.ndarray, ...]


class Slot(NamedTuple):
    """Some of our parameters, and the entries of a state dict that they correspond to.

    Attributes:
        ours: paths in the parameter tree, joined by `/`.
        theirs: names in the state dict, without prefix.
        dump: converts our arrays to theirs, in the order of `ours` and `theirs`.
        load: the inverse.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    dump: Callable[..., Arrays]
    load: Callable[..., Arrays]


def same(ours: str, theirs: str) -> Slot:
    """Equal arrays: tables, biases, LayerNorm's scales, and kernels of Hugging Face's Conv1D."""
    return Slot((ours,), (theirs,), lambda a: (a,), lambda a: (a,))


def flipped(ours: str, theirs: str) -> Slot:
    """A kernel (in, out) and PyTorch's weight (out, in)."""
    return Slot((ours,), (theirs,), lambda a: (a.T,), lambda a: (a.T,))


def head_list(ours: str, theirs: list[str]) -> Slot:
    """A kernel (H, C, D) and H weights (D, C)."""

    def dump(kernel_HCD: np.ndarray) -> Arrays:
        return tuple(kernel_CD.T for kernel_CD in kernel_HCD)

    def load(*weights_DC: np.ndarray) -> Arrays:
        return (np.stack([weight_DC.T for weight_DC in weights_DC]),)

    return Slot((ours,), tuple(theirs), dump, load)


def fused_kernel(ours: tuple[str, str, str], theirs: str, n_head: int, conv1d: bool) -> Slot:
    """Three kernels (H, C, D) and one weight: (C, 3C) for Conv1D, else (3C, C)."""

    def dump(*kernels_HCD: np.ndarray) -> Arrays:
        C = kernels_HCD[0].shape[1]
        fused = np.concatenate([k.transpose(1, 0, 2).reshape(C, -1) for k in kernels_HCD], axis=1)
        return (fused if conv1d else fused.T,)

    def load(fused: np.ndarray) -> Arrays:
        parts_CC = np.split(fused if conv1d else fused.T, 3, axis=1)
        C = len(parts_CC[0])
        return tuple(part.reshape(C, n_head, -1).transpose(1, 0, 2) for part in parts_CC)

    return Slot(ours, (theirs,), dump, load)


def fused_bias(ours: tuple[str, str, str], theirs: str, n_head: int) -> Slot:
    """Three biases (H, D) and one vector (3C,)."""

    def dump(*biases_HD: np.ndarray) -> Arrays:
        return (np.concatenate([bias.reshape(-1) for bias in biases_HD]),)

    def load(fused: np.ndarray) -> Arrays:
        return tuple(part.reshape(n_head, -1) for part in np.split(fused, 3))

    return Slot(ours, (theirs,), dump, load)


def lecture_layout(model_config: GPTConfig) -> list[Slot]:
    """The layout of the lecture's GPTLanguageModel."""
    slots = [
        same("wte/embedding", "token_embedding_table.weight"),
        same("wpe/embedding", "position_embedding_table.weight"),
    ]
    for i in range(model_config.n_layer):
        ours, theirs = f"block_{i}", f"blocks.{i}"
        for part in ("query", "key", "value"):
            names = [f"{theirs}.sa.heads.{h}.{part}.weight" for h in range(model_config.n_head)]
            slots.append(head_list(f"{ours}/attn/heads/{part}/kernel", names))
        slots += _linear(f"{ours}/attn/proj", f"{theirs}.sa.proj", True)
        slots += _linear(f"{ours}/mlp/fc", f"{theirs}.ffwd.net.0", True)
        slots += _linear(f"{ours}/mlp/proj", f"{theirs}.ffwd.net.2", True)
        slots += _layer_norm(f"{ours}/ln_1", f"{theirs}.ln1", True)
        slots += _layer_norm(f"{ours}/ln_2", f"{theirs}.ln2", True)
    return [*slots, *_layer_norm("ln_f", "ln_f", True), *_linear("lm_head", "lm_head", True)]


def gpt2_layout(model_config: GPTConfig, conv1d: bool) -> list[Slot]:
    """The layout of nanoGPT's GPT or, with `conv1d`, of Hugging Face's."""
    slots = [same("wte/embedding", "wte.weight"), same("wpe/embedding", "wpe.weight")]
    for i in range(model_config.n_layer):
        ours, theirs = f"block_{i}", f"h.{i}"
        query, key, value = (f"{ours}/attn/heads/{part}" for part in ("query", "key", "value"))
        kernels = (f"{query}/kernel", f"{key}/kernel", f"{value}/kernel")
        slots.append(
            fused_kernel(kernels, f"{theirs}.attn.c_attn.weight", model_config.n_head, conv1d)
        )
        if model_config.qkv_bias:
            biases = (f"{query}/bias", f"{key}/bias", f"{value}/bias")
            slots.append(fused_bias(biases, f"{theirs}.attn.c_attn.bias", model_config.n_head))
        for mine, other in (
            ("attn/proj", "attn.c_proj"),
            ("mlp/fc", "mlp.c_fc"),
            ("mlp/proj", "mlp.c_proj"),
        ):
            slots += _linear(f"{ours}/{mine}", f"{theirs}.{other}", model_config.bias, conv1d)
        slots += _layer_norm(f"{ours}/ln_1", f"{theirs}.ln_1", model_config.ln_bias)
        slots += _layer_norm(f"{ours}/ln_2", f"{theirs}.ln_2", model_config.ln_bias)
    slots += _layer_norm("ln_f", "ln_f", model_config.ln_bias)
    if not model_config.tie_embeddings:
        slots += _linear("lm_head", "lm_head", model_config.head_bias)
    elif model_config.head_bias:
        slots.append(same("lm_head/bias", "lm_head.bias"))
    return slots


def _linear(ours: str, theirs: str, bias: bool, conv1d: bool = False) -> list[Slot]:
    kernel = (same if conv1d else flipped)(f"{ours}/kernel", f"{theirs}.weight")
    return [kernel, *([same(f"{ours}/bias", f"{theirs}.bias")] if bias else [])]


def _layer_norm(ours: str, theirs: str, bias: bool) -> list[Slot]:
    scale = same(f"{ours}/scale", f"{theirs}.weight")
    return [scale, *([same(f"{ours}/bias", f"{theirs}.bias")] if bias else [])]
