"""A local folder of a Hugging Face GPT-2: its weights and its own vocabulary.

`safetensors` and `tokenizers` are imported here and nowhere else, and only when a folder is read.
"""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptjax.config import Activation, GPTConfig
from gptjax.errors import InputError
from gptjax.files import read_json
from gptjax.interop.weights import from_huggingface
from gptjax.model import GPT

CONFIG, WEIGHTS = "config.json", "model.safetensors"
VOCABULARY, WHOLE_TOKENIZER = ("vocab.json", "merges.txt"), "tokenizer.json"
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
# What a GPT-2 folder may set that changes the computation, and the value that ours has. Another
# value is refused: the weights would load, and the text would quietly be wrong.
FIXED: dict[str, Any] = {
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
# Of the extra `huggingface` in pyproject.toml.
PACKAGES = {"safetensors": "safetensors>=0.5,<1", "tokenizers": "tokenizers>=0.20,<1"}


class Pretrained(NamedTuple):
    """A model to sample from: the parts of a `Run` that a sampler reads."""

    model: GPT
    params: Any
    tokenizer: "FolderTokenizer"


class FolderTokenizer:
    """The folder's vocabulary, with the interface of `CharTokenizer`.

    Attributes:
        start_id: the token that begins a text without a prompt.
    """

    def __init__(self, tokenizer: Any, start_id: int) -> None:
        self._tokenizer = tokenizer
        self.start_id = start_id

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text: (N,) int32. Every text has some: the vocabulary is of bytes."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids."""
        return self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


def load_huggingface(folder: Path) -> Pretrained:
    """Reads config.json, model.safetensors and the vocabulary of a GPT-2 folder.

    Raises:
        InputError: a package or a file is missing, or the folder holds another kind of model; the
            message says which.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give that of a downloaded GPT-2")
    stored = read_json(folder / CONFIG)
    _check(folder, stored)
    entries = _read_weights(folder)
    activation = stored.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise InputError(
            f"{folder / CONFIG}: activation_function {activation!r} must be one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    try:
        config, params = from_huggingface(
            entries, n_head=stored.get("n_head", 12), activation=ACTIVATIONS[activation]
        )
    except InputError as error:
        raise InputError(f"{folder / WEIGHTS}: {error}") from error
    return Pretrained(GPT(config), params, _read_tokenizer(folder, stored, config))


def _check(folder: Path, stored: dict[str, Any]) -> None:
    for name, value in FIXED.items():
        found = stored.get(name, None if name == "model_type" else value)
        if found != value:
            raise InputError(
                f"{folder / CONFIG}: {name} is {found!r}, and only {value!r} can be read"
            )


def _read_weights(folder: Path) -> dict[str, np.ndarray]:
    path = folder / WEIGHTS
    safetensors = _import("safetensors.numpy")
    if not path.is_file():
        others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".safetensors"))
        found = f" (it has {', '.join(others)})" if others else ""
        raise InputError(f"{folder} has no {WEIGHTS}, the one file of weights that is read{found}")
    try:
        return safetensors.load_file(path)
    except Exception as error:  # the package has its own exceptions, and numpy's pass through it
        raise InputError(f"{path} cannot be read: {error}") from error


def _read_tokenizer(folder: Path, stored: dict[str, Any], config: GPTConfig) -> FolderTokenizer:
    tokenizers = _import("tokenizers")
    whole, parts = folder / WHOLE_TOKENIZER, [folder / name for name in VOCABULARY]
    try:
        if whole.is_file():
            tokenizer = tokenizers.Tokenizer.from_file(str(whole))
        elif all(part.is_file() for part in parts):
            tokenizer = tokenizers.ByteLevelBPETokenizer(*map(str, parts))
        else:
            raise InputError(
                f"{folder} has no vocabulary: {WHOLE_TOKENIZER}, or {' and '.join(VOCABULARY)}"
            )
    except InputError:
        raise
    except Exception as error:  # the package raises bare Exception for a file it cannot parse
        raise InputError(f"{folder}: the vocabulary cannot be read: {error}") from error
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise InputError(
            f"{folder}: the vocabulary has {tokenizer.get_vocab_size()} tokens, and the weights "
            f"have {config.vocab_size}"
        )
    start_id = stored.get("bos_token_id")
    if not (isinstance(start_id, int) and 0 <= start_id < config.vocab_size):
        start_id = 0
    return FolderTokenizer(tokenizer, start_id)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise InputError(
            f"--from-huggingface needs the package {package}: "
            f'python -m pip install "{PACKAGES[package]}"'
        ) from error
