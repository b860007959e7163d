"""Makes small GPT-2 folders, and returns sample.py's errors about invalid ones."""

import json
from pathlib import Path

import pytest

import sample
from gptjax import interop
from gptjax.config import GPTConfig

from test_interop import params_of

STORED = {"model_type": "gpt2", "n_head": 2, "activation_function": "gelu_new", "bos_token_id": 0}
TEXT = ["To be, or not to be: that is the question.\n", "Ünïcode, too."]


def make_folder(folder: Path) -> Path:
    """Makes a folder like Hugging Face's: names without a prefix, no output layer."""
    reason = "needs the extra `huggingface`"
    tokenizers = pytest.importorskip("tokenizers", reason=reason)
    safetensors = pytest.importorskip("safetensors.numpy", reason=reason)
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXT * 3, vocab_size=290, special_tokens=["<|endoftext|>"])
    bpe.save_model(str(folder))
    model_config = GPTConfig(
        vocab_size=bpe.get_vocab_size(),
        block_size=16,
        n_layer=1,
        n_head=2,
        n_embd=8,
        activation="gelu_tanh",
        qkv_bias=True,
        tie_embeddings=True,
        head_bias=False,
    )
    state_dict = interop.to_huggingface(model_config, params_of(model_config))
    del state_dict["lm_head.weight"]
    bare = {name.removeprefix("transformer."): array for name, array in state_dict.items()}
    safetensors.save_file(bare, folder / "model.safetensors")
    rewrite(folder)
    return folder


def rewrite(folder: Path, **changes) -> None:
    """Writes config.json with some values changed."""
    (folder / "config.json").write_text(json.dumps(STORED | changes))


def refusal(folder: Path, capsys, *argv: str, lines: int = 1) -> str:
    """Runs sample.py with a folder that it refuses with status 2; returns stderr."""
    capsys.readouterr()
    assert sample.main(["--from-huggingface", str(folder), *argv]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == lines
    assert "Traceback" not in error
    return error
