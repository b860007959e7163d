"""Makes the files that other implementations load, from a model and a tokenizer.

Weights are safetensors, never a pickle. If a format always has biases or a separate output layer,
zeros and copies fill these in, which changes no result. A model that a format cannot represent is
refused.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import IO, Any, Literal

import numpy as np

from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.files import as_json
from gptjax.interop.vocabulary_files import vocabulary_files
from gptjax.interop.weights import to_huggingface, to_lecture, to_nanogpt
from gptjax.text.tokenizers import Tokenizer

Format = Literal["huggingface", "nanogpt", "lecture"]
Entries = dict[str, np.ndarray]  # arrays of a state dict by name
WEIGHTS = "model.safetensors"
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new"}
WHOSE = {
    "huggingface": "Hugging Face's GPT-2",
    "nanogpt": "nanoGPT's model",
    "lecture": "the lecture's model",
}
# The fields that must have one value in each format: field, value and flag.
REQUIRED: dict[str, list[tuple[str, Any, str]]] = {
    "huggingface": [("head_bias", False, "--no-head-bias")],
    "nanogpt": [
        ("activation", "gelu", "--activation gelu"),
        ("tie_embeddings", True, "--tie-embeddings"),
        ("head_bias", False, "--no-head-bias"),
    ],
    "lecture": [("activation", "relu", "--activation relu"), ("qkv_bias", False, "--no-qkv-bias")],
}
LOADERS = {
    "huggingface": """from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
""",
    "nanogpt": """import json, safetensors.torch, model  # nanoGPT's model.py
gpt = model.GPT(model.GPTConfig(**json.load(open("config.json"))))
gpt.load_state_dict(safetensors.torch.load_file("model.safetensors"))
""",
    "lecture": """import safetensors.torch  # in gpt.py, with the numbers of config.json at its top
model = GPTLanguageModel()
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
""",
}


def check_format(to: Format, model_config: GPTConfig) -> None:
    """Checks that a format can represent a model.

    Raises:
        InputError: the format cannot; the message names the flag that would have to differ.
    """
    for name, value, flag in REQUIRED[to]:
        found = getattr(model_config, name)
        if found != value:
            raise InputError(
                f"{name} ({found}) must be {value} for {WHOSE[to]}: only a model that is trained "
                f"with {flag} can be exported to this format"
            )


def files_of(
    to: Format, model_config: GPTConfig, params: Any, tokenizer: Tokenizer
) -> dict[str, str | Entries]:
    """Returns the files of an exported folder by name, except the README: texts and the weights.

    Raises:
        InputError: a package is missing, or as in `check_format`.
    """
    check_format(to, model_config)
    held, params = _nearest(to, model_config, params)
    write: dict[str, Callable[..., dict[str, np.ndarray]]] = {
        "huggingface": to_huggingface,
        "nanogpt": to_nanogpt,
        "lecture": to_lecture,
    }
    entries = write[to](held, params)
    if to == "huggingface":
        if held.tie_embeddings:  # transformers stores one table and ties it itself
            del entries["lm_head.weight"]
        config = _huggingface_config(held, tokenizer)
        vocabulary = vocabulary_files(tokenizer, held.block_size)
    else:
        config = _plain_config(to, held)
        vocabulary = {"tokenizer.json": as_json(tokenizer.to_dict()), "load.py": LOADERS[to]}
    return {WEIGHTS: entries, "config.json": as_json(config), **vocabulary}


def write_entries(file: IO[bytes], entries: Entries) -> None:
    """Writes a safetensors file one array at a time, so that memory never holds the whole file.

    The format is the size of the header (8 bytes, little-endian), the header as JSON, and the
    arrays' bytes.

    Args:
        entries: float32 arrays by name, in C order.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in entries.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8 bytes
    file.write(len(text).to_bytes(8, "little") + text)
    for array in entries.values():
        file.write(array.astype("<f4", order="C", copy=False).data)


def _nearest(to: Format, model_config: GPTConfig, params: Any) -> tuple[GPTConfig, Any]:
    """Converts to an equal model that the format can hold: adds zero biases, copies the table."""
    has_any = model_config.bias or model_config.ln_bias or model_config.qkv_bias
    biases = has_any if to == "nanogpt" else True
    changes: dict[str, Any] = {"bias": biases, "ln_bias": biases}
    params = {**params}
    if to == "lecture":
        changes |= {"tie_embeddings": False, "head_bias": True}
        if model_config.tie_embeddings:
            head = {"kernel": np.asarray(params["wte"]["embedding"]).T}
            params["lm_head"] = {**params.get("lm_head", {}), **head}
        if not model_config.head_bias:
            zeros = np.zeros(model_config.vocab_size, np.float32)
            params["lm_head"] = {**params["lm_head"], "bias": zeros}
    else:
        changes["qkv_bias"] = biases
    if biases:
        blocks = {name for name in params if name.startswith("block_")}
        for name in blocks:
            params[name] = _with_biases(params[name], qkv=to != "lecture")
        params["ln_f"] = _with_bias(params["ln_f"], "scale")
    return dataclasses.replace(model_config, **changes), params


def _with_biases(block: Any, qkv: bool) -> Any:
    """Adds zero biases to a block's layers that have none."""
    attn = {**block["attn"], "proj": _with_bias(block["attn"]["proj"], "kernel")}
    if qkv:
        heads = block["attn"]["heads"]
        attn["heads"] = {
            name: part if "bias" in part else {**part, "bias": _zeros(part["kernel"], heads=True)}
            for name, part in heads.items()
        }
    mlp = {name: _with_bias(part, "kernel") for name, part in block["mlp"].items()}
    norms = {name: _with_bias(block[name], "scale") for name in ("ln_1", "ln_2")}
    return {"attn": attn, "mlp": mlp, **norms}


def _with_bias(layer: Any, of: str) -> Any:
    return layer if "bias" in layer else {**layer, "bias": _zeros(layer[of])}


def _zeros(kernel: Any, heads: bool = False) -> np.ndarray:
    shape = (kernel.shape[0], kernel.shape[-1]) if heads else kernel.shape[-1:]
    return np.zeros(shape, np.float32)


def _huggingface_config(model_config: GPTConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    dropout = model_config.dropout
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model_config.vocab_size,
        "n_positions": model_config.block_size,
        "n_layer": model_config.n_layer,
        "n_head": model_config.n_head,
        "n_embd": model_config.n_embd,
        "activation_function": ACTIVATIONS[model_config.activation],
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": dropout,
        "resid_pdrop": dropout,
        "embd_pdrop": dropout if model_config.embd_dropout else 0.0,
        "tie_word_embeddings": model_config.tie_embeddings,
        "bos_token_id": tokenizer.start_id,
        "eos_token_id": tokenizer.end_id,
        "torch_dtype": "float32",
    }


def _plain_config(to: Format, model_config: GPTConfig) -> dict[str, Any]:
    names = ["block_size", "vocab_size", "n_layer", "n_head", "n_embd", "dropout"]
    return {name: getattr(model_config, name) for name in names + ["bias"] * (to == "nanogpt")}
