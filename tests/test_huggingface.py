"""`sample.py --from-huggingface`: a local GPT-2 folder, and folders without GPT-2."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

import sample
from gptjax.errors import InputError
from gptjax.inference.generation import generate
from gptjax.interop.folder_vocabulary import END_OF_TEXT
from gptjax.interop.huggingface import load_huggingface
from gptjax.text.packages import PACKAGES

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra `huggingface`")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra `huggingface`")

from gpt2_folders import TEXT, refusal, rewrite  # noqa: E402


@pytest.fixture
def folder(gpt2, tmp_path):
    return shutil.copytree(gpt2, tmp_path / "gpt2")


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


@pytest.mark.parametrize("name", ["tf_model.h5", "ckpt.pt", "adapter_model.safetensors"])
def test_weights_of_another_kind_are_mentioned(name, folder, capsys):
    (folder / "model.safetensors").rename(folder / name)
    assert f"it has {name}" in refusal(folder, capsys)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 64], ids=["empty", "torn", "zeros"])
def test_a_damaged_file_is_named(name, content, folder, capsys):
    (folder / name).write_bytes(content)
    error = refusal(folder, capsys)
    assert name in error or "vocabulary" in error


def whole_of(folder):
    """The tokenizer of the folder's parts, which the tests save as tokenizer.json."""
    return tokenizers.ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def test_a_token_that_the_weights_lack_is_told_and_cannot_be_asked_for(folder, capsys):
    """Such as [PAD], if somebody added it without resizing the embeddings."""
    whole = whole_of(folder)
    size = whole.get_vocab_size()
    whole.add_special_tokens(["[PAD]"])
    whole.save(str(folder / "tokenizer.json"))
    flags = ["--from-huggingface", str(folder), "--max-new-tokens", "4"]
    assert sample.main([*flags, "--prompt", "To be"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("To be")
    assert f"which have {size}: id {size} ('[PAD]') cannot occur" in captured.err
    error = refusal(folder, capsys, "--prompt", "To be[PAD]", lines=3)
    assert f"token '[PAD]' (id {size}, at character 5)" in error
    assert f"the weights have {size} tokens" in error


def test_many_tokens_that_the_weights_lack(folder):
    """If the start token is one of them, a sample starts with the end-of-text token."""
    weights = safetensors.load_file(folder / "model.safetensors")
    weights["wte.weight"] = weights["wte.weight"][:100].copy()
    safetensors.save_file(weights, folder / "model.safetensors")
    rewrite(folder, bos_token_id=270)
    told = []
    tokenizer = load_huggingface(folder, told.append).tokenizer
    assert len(told) == 1
    assert f"ids 100 to {tokenizer.vocab_size - 1} (" in told[0]
    assert tokenizer.start_id == 0
    with pytest.raises(InputError, match="the weights have 100 tokens"):
        tokenizer.encode(TEXT[0])


def test_an_id_behind_a_hole_in_the_vocabulary_is_beyond_the_weights(folder):
    """The number of tokens fits the weights, but one token has a larger id."""
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary[max(vocabulary, key=vocabulary.__getitem__)] = len(vocabulary) + 9
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    told = []
    load_huggingface(folder, told.append)
    assert f"id {len(vocabulary) + 9} (" in told[0]


def test_the_parts_of_a_tokenizer_give_the_ids_of_the_whole(folder):
    """`<|endoftext|>` used to become 13 tokens; tokenizer.json has one."""
    text = f"{END_OF_TEXT}To be{END_OF_TEXT} or not"
    parts = load_huggingface(folder).tokenizer.encode(text)
    whole = whole_of(folder)
    whole.add_special_tokens([END_OF_TEXT])
    whole.save(str(folder / "tokenizer.json"))
    found = load_huggingface(folder).tokenizer.encode(text)
    np.testing.assert_array_equal(found, parts)
    assert found[0] == 0
    assert (found == 0).sum() == 2


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json"])
def test_added_tokens_beside_the_parts_are_tokens(name, folder, capsys):
    size = load_huggingface(folder).tokenizer.vocab_size

    def write(first):
        added = {"[PAD]": first, "<|user|>": first + 1}
        numbered = {str(i): {"content": token} for token, i in added.items()}
        as_settings = {"added_tokens_decoder": numbered}
        content = added if name == "added_tokens.json" else as_settings
        (folder / name).write_text(json.dumps(content))

    write(size)
    told = []
    tokenizer = load_huggingface(folder, told.append).tokenizer
    assert f"ids {size} to {size + 1} ('[PAD]', ...)" in told[0]
    with pytest.raises(InputError, match=r"token '<\|user\|>'"):
        tokenizer.encode("a<|user|>b")
    write(size + 7)
    assert f"'[PAD]' has id {size + 7}" in refusal(folder, capsys)


def test_special_tokens_beside_the_parts_are_one_id(folder):
    """Any file may list it, as text or as an object. A special token without an id is ignored."""
    names = {"bos_token": "<|start|>", "pad_token": {"content": "<|pad|>"}, "unk_token": "none"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    for token in ("<|start|>", "<|pad|>"):
        vocabulary[token] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = load_huggingface(folder).tokenizer
    assert tokenizer.vocab_size == len(vocabulary)
    for token in ("<|start|>", "<|pad|>"):
        with pytest.raises(InputError, match=rf"id {vocabulary[token]}, at character 1"):
            tokenizer.encode(f"a{token}b")


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
    assert f"pip install '{PACKAGES[package]}'" in error


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
