"""`sample.py --from-huggingface`: a local GPT-2 folder, and folders that are none."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

import sample
from gptjax import interop
from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.inference.generation import generate
from gptjax.interop.huggingface import PACKAGES, load_huggingface

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra `huggingface`")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra `huggingface`")

from test_interop import params_of  # noqa: E402

STORED = {"model_type": "gpt2", "n_head": 2, "activation_function": "gelu_new", "bos_token_id": 0}
TEXT = ["To be, or not to be: that is the question.\n", "Ünïcode, too."]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder as Hugging Face writes it: bare names, no output layer."""
    folder = tmp_path_factory.mktemp("gpt2")
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXT * 3, vocab_size=290, special_tokens=["<|endoftext|>"])
    bpe.save_model(str(folder))
    config = GPTConfig(
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
    state_dict = interop.to_huggingface(config, params_of(config))
    del state_dict["lm_head.weight"]
    bare = {name.removeprefix("transformer."): array for name, array in state_dict.items()}
    safetensors.save_file(bare, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(STORED))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "gpt2")


def rewrite(folder, **changes):
    (folder / "config.json").write_text(json.dumps(STORED | changes))


def refusal(folder, capsys, *argv):
    capsys.readouterr()
    assert sample.main(["--from-huggingface", str(folder), *argv]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    return error


def test_a_folder_is_sampled_from(folder, capsys):
    given = ["--from-huggingface", str(folder), "--prompt", "To be", "--max-new-tokens", "8"]
    assert sample.main([*given, "--num-samples", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("To be")
    assert captured.out.count("---------------\n") == 2
    assert str(folder) in captured.err


def test_without_a_prompt_it_starts_from_the_folders_own_token(folder, capsys):
    rewrite(folder, bos_token_id=3)
    assert load_huggingface(folder).tokenizer.start_id == 3
    assert sample.main(["--from-huggingface", str(folder), "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.endswith("\n---------------\n")


@pytest.mark.parametrize("text", TEXT)
def test_the_folders_vocabulary_reads_and_writes_any_text(text, folder):
    tokenizer = load_huggingface(folder).tokenizer
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert len(ids) < len(text.encode()), "pairs were merged"
    assert tokenizer.decode(ids) == text


def test_a_whole_tokenizer_file_serves_as_well(folder):
    parts = load_huggingface(folder).tokenizer
    whole = tokenizers.ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    whole.save(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    np.testing.assert_array_equal(
        load_huggingface(folder).tokenizer.encode(TEXT[0]), parts.encode(TEXT[0])
    )


def test_the_folders_activation_is_used(folder):
    rewrite(folder, activation_function="relu")
    assert load_huggingface(folder).model.config.activation == "relu"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"model_type": None}, "model_type"),
        ({"activation_function": "silu"}, "silu"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"n_head": 3}, "n_head"),
        ({"n_head": "two"}, "n_head"),
    ],
    ids=str,
)
def test_a_model_that_is_not_ours_is_named(changes, named, folder, capsys):
    rewrite(folder, **changes)
    assert named in refusal(folder, capsys)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "merges.txt"])
def test_a_missing_file_is_named(name, folder, capsys):
    (folder / name).unlink()
    assert name in refusal(folder, capsys)


def test_weights_of_another_kind_are_mentioned(folder, capsys):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refusal(folder, capsys)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 64], ids=["empty", "torn", "zeros"])
def test_a_damaged_file_is_named(name, content, folder, capsys):
    (folder / name).write_bytes(content)
    error = refusal(folder, capsys)
    assert name in error or "vocabulary" in error


def test_weights_and_vocabulary_must_fit(folder, capsys):
    weights = safetensors.load_file(folder / "model.safetensors")
    weights["wte.weight"] = weights["wte.weight"][:100].copy()
    safetensors.save_file(weights, folder / "model.safetensors")
    assert "the weights have 100" in refusal(folder, capsys)


@pytest.mark.parametrize("flag", [["--out-dir", "runs/x"], ["--step", "3"]], ids=str)
def test_a_run_and_a_folder_are_not_given_together(flag, folder, capsys):
    assert flag[0] in refusal(folder, capsys, *flag)


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert "gone" in refusal(tmp_path / "gone", capsys)


@pytest.mark.parametrize("package", ["safetensors", "tokenizers"])
def test_a_missing_package_is_one_line_with_the_command(package, folder, capsys, monkeypatch):
    for name in (package, f"{package}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    error = refusal(folder, capsys)
    assert package in error
    assert f'pip install "{PACKAGES[package]}"' in error


def test_a_folder_of_transformers_own_making_gives_its_logits_and_its_text(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra `compare`")
    torch = pytest.importorskip("torch", reason="needs the extra `compare`")
    torch.manual_seed(0)
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXT, vocab_size=280, special_tokens=["<|endoftext|>"])
    bpe.save_model(str(tmp_path))
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=bpe.get_vocab_size(), n_positions=32, n_embd=16, n_layer=2, n_head=4
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    loaded = load_huggingface(tmp_path)
    ids = loaded.tokenizer.encode(TEXT[0])[None, :8]
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    given = torch.from_numpy(ids).long()
    expected = theirs.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False
    )
    ours = generate(
        loaded.model, loaded.params, ids, jax.random.key(0), max_new_tokens=12, temperature=0.0
    )
    np.testing.assert_array_equal(np.asarray(ours), expected.numpy())


def test_an_error_in_the_weights_names_the_file(folder):
    weights = safetensors.load_file(folder / "model.safetensors")
    weights["extra"] = np.ones(2, np.float32)
    safetensors.save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: .*unknown entry extra"):
        load_huggingface(folder)
