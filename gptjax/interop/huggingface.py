"""Loads a local folder of a Hugging Face GPT-2: its configuration, weights and vocabulary.

The files in the folder may be links, because the hub's cache stores them elsewhere. Unlike a run
(SECURITY.md), the folder must be one that the user trusts. Even so, no pickle is read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gptjax.config import Activation
from gptjax.errors import InputError
from gptjax.files import read_json
from gptjax.interop.folder_vocabulary import FolderTokenizer, read_vocabulary
from gptjax.interop.folder_weights import check_folder, read_weights
from gptjax.interop.weights import from_huggingface
from gptjax.model import GPT

CONFIG = "config.json"
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
# Settings of a GPT-2 folder that change the computation, with the values that our model has. Other
# values are refused: the weights would load, but the text would be silently wrong.
FIXED: dict[str, Any] = {
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


class Pretrained(NamedTuple):
    """A model to sample from, with the fields of `Run` that sampling uses."""

    model: GPT
    params: Any
    tokenizer: FolderTokenizer


def load_huggingface(folder: Path, tell: Callable[[str], None] = lambda _: None) -> Pretrained:
    """Reads config.json, the weights (model.safetensors or its shards) and the vocabulary.

    Args:
        tell: receives a line about tokens that cannot occur.

    Raises:
        InputError: a package or a file is missing, or the folder contains another kind of model;
            the message says which.
    """
    check_folder(folder)
    stored = read_json(folder / CONFIG, links=True)
    _check(folder, stored)
    path, entries = read_weights(folder)
    activation = stored.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise InputError(
            f"{folder / CONFIG}: activation_function {activation!r} must be one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    try:
        model_config, params = from_huggingface(
            entries, n_head=stored.get("n_head", 12), activation=ACTIVATIONS[activation]
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    tokenizer = read_vocabulary(folder, stored.get("bos_token_id"), model_config.vocab_size, tell)
    return Pretrained(GPT(model_config), params, tokenizer)


def _check(folder: Path, stored: dict[str, Any]) -> None:
    for name, value in FIXED.items():
        found = stored.get(name, None if name == "model_type" else value)
        if found != value:
            raise InputError(
                f"{folder / CONFIG}: {name} is {found!r}, but only {value!r} is supported"
            )
