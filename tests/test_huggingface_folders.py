"""GPT-2 folders as on people's disks: links, shards, pickles, caches, incomplete downloads."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sample
from gptjax.errors import InputError
from gptjax.interop import folder_weights
from gptjax.interop.huggingface import load_huggingface

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra `huggingface`")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra `huggingface`")

from gpt2_folders import refusal  # noqa: E402

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(gpt2, tmp_path):
    return shutil.copytree(gpt2, tmp_path / "gpt2")


def as_the_hub_lays_it_out(folder: Path, cache: Path) -> Path:
    """models--NAME with blobs, refs and snapshots, whose files are relative links to blobs."""
    model = cache / "models--openai-community--gpt2"
    snapshot = model / "snapshots" / ("0123456789abcdef" * 3)[:40]
    for place in (model / "blobs", model / "refs", snapshot):
        place.mkdir(parents=True)
    (model / "refs" / "main").write_text(snapshot.name)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.move(file, model / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def in_shards(folder: Path) -> dict[str, str]:
    """Replaces the file by two shards and their index; returns the shard of each entry."""
    weights = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    places = {entry: names[i % 2] for i, entry in enumerate(sorted(weights))}
    for name in names:
        part = {entry: a for entry, a in weights.items() if places[entry] == name}
        safetensors.save_file(part, folder / name)
    write_index(folder, places)
    return places


def write_index(folder: Path, places: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def assert_same_model(one: Path, other: Path) -> None:
    a, b = load_huggingface(one), load_huggingface(other)
    assert a.model == b.model
    flat = [x.params["wte"]["embedding"] for x in (a, b)]
    np.testing.assert_array_equal(*flat)
    np.testing.assert_array_equal(a.tokenizer.encode("To be"), b.tokenizer.encode("To be"))


def test_a_snapshot_of_the_hubs_cache_is_read(folder, gpt2, tmp_path):
    """Its files are links to blobs; the error "config.json is a link" of a run must not appear."""
    assert_same_model(as_the_hub_lays_it_out(folder, tmp_path), gpt2)


def test_a_sharded_snapshot_too(folder, gpt2, tmp_path):
    in_shards(folder)
    assert_same_model(as_the_hub_lays_it_out(folder, tmp_path), gpt2)


def test_the_folder_around_the_snapshots_leads_to_the_one(folder, tmp_path, capsys):
    snapshot = as_the_hub_lays_it_out(folder, tmp_path)
    error = refusal(snapshot.parent.parent, capsys)
    assert f"is the hub's cache of a model: give {snapshot}" in error
    assert_same_model(Path(error.split("give ")[1].strip()), snapshot)


def test_a_link_whose_target_is_gone_is_named(folder, tmp_path, capsys):
    """A cache that was pruned by hand."""
    snapshot = as_the_hub_lays_it_out(folder, tmp_path)
    (snapshot / "model.safetensors").resolve().unlink()
    error = refusal(snapshot, capsys)
    assert "model.safetensors is a link to ../../blobs/" in error
    assert "which does not exist" in error


def test_shards_are_one_model(folder, gpt2):
    in_shards(folder)
    assert_same_model(folder, gpt2)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/passwd", "..\\x.safetensors", "a/b.safetensors", "x.bin"],
)
def test_a_shard_that_is_not_in_the_folder_is_refused(name, folder, capsys):
    places = in_shards(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder.parent / "secret.safetensors")
    write_index(folder, places | {min(places): name})
    assert "must be a .safetensors file in the same folder" in refusal(folder, capsys)


def test_shards_and_their_index_must_agree(folder, capsys):
    places = in_shards(folder)
    for broken in (None, [], {"wte.weight": 5}):
        write_index(folder, broken)
        assert "weight_map must name a file for each entry" in refusal(folder, capsys)
    write_index(folder, places | {"extra.weight": max(places.values())})
    assert "has no entry extra.weight" in refusal(folder, capsys)
    (folder / INDEX).write_text("{")
    assert f"{INDEX}: not valid JSON" in refusal(folder, capsys)
    write_index(folder, places)
    first, second = sorted(set(places.values()))
    weights = safetensors.load_file(folder / first)
    safetensors.save_file(weights | safetensors.load_file(folder / second), folder / second)
    assert "is in another shard too" in refusal(folder, capsys)
    (folder / second).unlink()
    assert f"has no {second}, which {INDEX} names" in refusal(folder, capsys)


def test_a_pointer_of_git_lfs_is_no_model(folder, capsys):
    """What `git clone` leaves where git-lfs is not installed."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 548105171\n"
    (folder / "model.safetensors").write_text(pointer)
    error = refusal(folder, capsys)
    assert "is a Git LFS pointer" in error
    assert f"`git -C {folder} lfs pull`" in error


def test_a_missing_folder_is_said_how_to_get(tmp_path, capsys, monkeypatch):
    """`--from-huggingface gpt2` is in the help of sample.py."""
    monkeypatch.chdir(tmp_path)
    for given, repository in (
        ("gpt2", "openai-community/gpt2"),
        ("models/gpt2-xl", "openai-community/gpt2-xl"),
        ("distilgpt2", "distilbert/distilgpt2"),
        ("someone/small-gpt2", "someone/small-gpt2"),
        ("./my folder", "openai-community/gpt2"),
    ):
        error = refusal(Path(given), capsys)
        names = ["config.json", "model.safetensors", "tokenizer.json"]
        command = shlex.join(
            ["hf", "download", repository, *names, "--local-dir", f"{Path(given)}"]
        )
        assert f"`{command}`" in error
        assert "pip install -U huggingface_hub" in error
    (tmp_path / "gpt2").write_text("")
    assert "gpt2: is a file; download" in refusal(Path("gpt2"), capsys)


def test_a_missing_vocabulary_is_said_how_to_get(folder, capsys):
    """A model's `save_pretrained` writes none."""
    (folder / "vocab.json").unlink()
    error = refusal(folder, capsys)
    assert "has no vocabulary" in error
    assert f"tokenizer.json --local-dir {folder}`" in error


def test_a_pickle_alone_is_refused_with_the_command_that_converts_it(folder, capsys):
    for name in ("pytorch_model.bin", "pytorch_model-00001-of-00002.bin"):
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / name).write_bytes(b"\x80\x04.")
        error = refusal(folder, capsys)
        assert "never opened here" in error
        assert shlex.join(["-c", folder_weights.CONVERT, str(folder)]) in error
        (folder / name).unlink()


@pytest.fixture
def transformers():
    pytest.importorskip("torch", reason="needs the extra `compare`")
    return pytest.importorskip("transformers", reason="needs the extra `compare`")


def tiny_gpt2(transformers, vocab_size):
    import torch

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=vocab_size, n_positions=16, n_embd=16, n_layer=2, n_head=2
    )
    return transformers.GPT2LMHeadModel(config).eval()


def logits_of(loaded, ids_BT):
    return np.asarray(loaded.model.apply({"params": loaded.params}, ids_BT, deterministic=True))


def theirs_of(model, ids_BT):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(ids_BT).long()).logits.numpy()


IDS = np.array([[0, 3, 9, 40, 7, 7, 250, 12]], np.int32)


def test_shards_of_transformers_own_making_give_its_logits(folder, tmp_path, transformers):
    size = load_huggingface(folder).tokenizer.vocab_size
    theirs = tiny_gpt2(transformers, size)
    (folder / "model.safetensors").unlink()
    theirs.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    loaded = load_huggingface(as_the_hub_lays_it_out(folder, tmp_path / "cache"))
    np.testing.assert_allclose(logits_of(loaded, IDS), theirs_of(theirs, IDS), atol=2e-5)


@pytest.mark.slow
def test_the_command_that_converts_a_pickle_works_when_followed(
    folder,
    capsys,
    transformers,
    tmp_path,
):
    import torch

    size = load_huggingface(folder).tokenizer.vocab_size
    theirs = tiny_gpt2(transformers, size)
    there = folder.rename(tmp_path / "a folder's name")
    (there / "model.safetensors").unlink()
    theirs.config.save_pretrained(there)
    torch.save(theirs.state_dict(), there / "pytorch_model.bin")
    command = refusal(there, capsys).split("`")[1]
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        logits_of(load_huggingface(there), IDS), theirs_of(theirs, IDS), atol=2e-5
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_folders_are_read(folder, dtype):
    weights = safetensors.load_file(folder / "model.safetensors")
    half = np.dtype(dtype)
    safetensors.save_file(
        {k: a.astype(half) for k, a in weights.items()}, folder / "model.safetensors"
    )
    found = load_huggingface(folder).params["wte"]["embedding"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, weights["wte.weight"], rtol=1e-2)


def test_nothing_is_unpickled(folder, monkeypatch, capsys):
    import pickle

    def boom(*_, **__):
        raise AssertionError("a pickle was opened")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, boom)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    assert sample.main(["--from-huggingface", str(folder), "--max-new-tokens", "2"]) == 0
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError):
        load_huggingface(folder)
