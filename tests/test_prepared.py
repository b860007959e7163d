"""Training on prepared text: it is used unchanged, or the real script prints one error line."""

import json
import os
import pickle
import re
import shlex
import subprocess

import numpy as np
import pytest

import train
from gptjax import __main__ as command
from gptjax.store import runs
from gptjax.text import prepared, preparing
from gptjax.text.bpe import byte_characters
from gptjax.text.prepared import read_prepared
from gptjax.tokenizer import CharTokenizer

from conftest import TEXT, tiny
from outcomes import assert_same_state

KNOWN = CharTokenizer.from_text(TEXT)


@pytest.fixture
def folder(tmp_path, text_file):
    """The text of the finished run, prepared."""
    assert command.main(["prepare", str(text_file), "--out", str(tmp_path / "corpus")]) == 0
    return tmp_path / "corpus"


@pytest.fixture
def nanogpts(tmp_path):
    """The text as written by nanoGPT's prepare.py for characters."""
    folder = tmp_path / "nanogpts"
    folder.mkdir()
    ids = KNOWN.encode(TEXT).astype(np.uint16)
    ids[: int(0.9 * len(ids))].tofile(folder / "train.bin")
    ids[int(0.9 * len(ids)) :].tofile(folder / "val.bin")
    names = dict(enumerate(KNOWN.characters))
    meta = {"vocab_size": len(names), "itos": names, "stoi": {v: k for k, v in names.items()}}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return folder


def refusal(refused, folder, tmp_path, *flags):
    error = refused(train, *tiny("--data", folder, "--out-dir", tmp_path / "run"), *flags)
    assert not (tmp_path / "run").exists()
    return error


def test_a_run_on_prepared_text_is_the_run_on_the_text(folder, finished_run, tmp_path, refused):
    flags = tiny("--data", folder, "--out-dir", tmp_path / "run")
    assert train.main(flags) == 0
    assert_same_state(tmp_path / "run", finished_run)
    assert runs.read_run(tmp_path / "run")[0].data == str(folder)
    assert train.main(["--out-dir", str(tmp_path / "run"), "--resume"]) == 0
    np.zeros(99, np.uint16).tofile(folder / "val.bin")
    (folder / "meta.json").write_text(json.dumps({"tokenizer": KNOWN.to_dict()}))
    resume = ["--out-dir", tmp_path / "run", "--resume", "--max-iters", 9]
    assert "is another text than the run's" in refused(train, *resume)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: x[:-1], "but must have a multiple of 2"),
        (lambda x: b"", "has 0 bytes"),
        (lambda x: x[:-2], "but meta.json says"),
        (lambda x: x[2:] + x[:2], "its sha256 differs"),
        (lambda x: x[:-2] + b"\xff\xff", "has id 65535, but the vocabulary has"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(damage, message, folder, tmp_path, refused):
    path = folder / "train.bin"
    path.write_bytes(damage(path.read_bytes()))
    error = refusal(refused, folder, tmp_path)
    assert message in error
    assert str(path) in error


def test_what_else_is_wrong_with_a_folder_is_named(folder, tmp_path, refused):
    error = refusal(refused, folder, tmp_path, "--tokenizer", "byte")
    assert "was prepared with char; leave the flag out" in error
    stored = json.loads((folder / "meta.json").read_text())
    for tokenizer, message in ((None, "is damaged (tokenizer)"), ({"type": "char"}, "must be a")):
        (folder / "meta.json").write_text(json.dumps(stored | {"tokenizer": tokenizer}))
        assert message in refusal(refused, folder, tmp_path)
    (folder / "val.bin").unlink()
    assert "but no val.bin: prepare it again" in refusal(refused, folder, tmp_path)
    (tmp_path / "empty").mkdir()
    error = refusal(refused, tmp_path / "empty", tmp_path)
    assert "have it prepared (`" in error


def test_advice_about_prepared_text_is_followed(text_file, folder, tmp_path):
    """Prepared again over the damage, without the flag, and by a pattern instead of a folder."""
    (folder / "train.bin").write_bytes(b"x")
    assert command.main(["prepare", str(text_file), "--out", str(folder), "--overwrite"]) == 0
    read_prepared(folder, None, None, tmp_path)
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    (tmp_path / "texts" / "deep" / "a.txt").write_text(TEXT)
    new = ["--data", f"{tmp_path}/texts/**/*.txt", "--out-dir", tmp_path / "run"]
    assert train.main(tiny(*new, "--max-iters", 1)) == 0
    assert train.main(["--resume", "--out-dir", str(tmp_path / "run"), "--max-iters", "2"]) == 0


def test_nanogpts_pickle_is_never_opened_and_the_command_makes_a_meta_json_of_it(
    nanogpts, tmp_path, refused
):
    error = refusal(refused, nanogpts, tmp_path)
    assert "is a pickle, which can run code and is never opened here" in error
    [line] = re.findall("`(.*)` writes", error)
    assert not (nanogpts / "meta.json").exists()
    subprocess.run(shlex.split(line), check=True, timeout=60)
    found = read_prepared(nanogpts, None, None, tmp_path)
    assert found.tokenizer.to_dict() == KNOWN.to_dict()
    assert found.tokenizer.decode(found.train) + found.tokenizer.decode(found.val) == TEXT
    assert found.bytes == (len(found.train), len(found.val))


def test_nanogpts_folder_of_gpt2s_tokens_is_read_with_its_vocabulary(tmp_path, refused):
    pytest.importorskip("tokenizers", reason="needs the extra `data`")
    tokens = [*byte_characters(), "Ġt", "<|endoftext|>"]
    folder, vocabulary = tmp_path / "corpus", tmp_path / "vocabulary"
    for place in (folder, vocabulary):
        place.mkdir()
    (vocabulary / "vocab.json").write_text(json.dumps({x: i for i, x in enumerate(tokens)}))
    (vocabulary / "merges.txt").write_text("#version: 0.2\nĠ t\n")
    ids = [byte_characters().index(x) for x in "the"] + [256, 257]
    for name in ("train.bin", "val.bin"):
        np.array(ids * 20, np.uint16).tofile(folder / name)
    error = refusal(refused, folder, tmp_path)
    assert "add --tokenizer gpt2, or the folder of the vocabulary" in error
    found = read_prepared(folder, str(vocabulary), None, tmp_path)
    assert found.tokenizer.decode(found.train[:5]) == "the t<|endoftext|>"
    assert found.bytes == (100, 100)  # the end-of-text token is not a byte of the text
    again = read_prepared(folder, None, found.tokenizer, tmp_path)  # a resume
    assert again.sha256 == found.sha256


def test_from_65537_ids_on_a_file_has_four_bytes_an_id(tmp_path):
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x20000)]))
    text = characters + "\U0001ffff" * 9000
    (tmp_path / "text.txt").write_text(text.replace("\0", ""), newline="")
    assert (
        command.main(["prepare", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out")]) == 0
    )
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["dtype"] == "uint32"
    found = read_prepared(tmp_path / "out", None, None, tmp_path)
    assert found.train.dtype == np.uint32
    assert found.tokenizer.decode(found.val[-1:]) == "\U0001ffff"
    assert [prepared.dtype_of(n).name for n in (65_536, 65_537)] == ["uint16", "uint32"]


def test_of_a_file_too_large_to_read_first_the_size_and_the_first_ids_are_checked(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(prepared, "VERIFIED", 0)
    monkeypatch.setattr(prepared, "CHUNK", 1000)
    path = folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\xff\xff")
    read_prepared(folder, None, None, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "is of format 2, but this version reads 1: prepare the text again"),
        ({"train": [1]}, "is damaged (train)"),
        ({"val": {"tokens": "9"}}, "is damaged (tokens of val)"),
        ({"val": {"bytes": -1}}, "is damaged (bytes of val)"),
        ({"train": {"bytes": None}}, "is damaged (bytes of train)"),
        ({"tokenizer": "char"}, "is damaged (tokenizer)"),
        ({"tokenizer": {"type": "char", "characters": 5}}, "meta.json: "),
        ({"dtype": "uint32", "train": {"tokens": 1}}, "but meta.json says 1"),
    ],
)
def test_a_damaged_description_is_named(changes, message, folder, tmp_path, refused):
    stored = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(stored | changes))
    error = refusal(refused, folder, tmp_path)
    assert message in error
    assert str(folder) in error


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"train": NaN}', b"[" * 99999])
def test_a_description_that_is_no_json_is_named(content, folder, tmp_path, refused):
    (folder / "meta.json").write_bytes(content)
    assert "meta.json" in refusal(refused, folder, tmp_path)


def test_what_is_no_file_of_tokens_is_named(folder, tmp_path, refused):
    """Another program's val.bin, a folder or a pipe in its place, and a text file."""
    path = folder / "val.bin"
    (folder / "meta.json").write_text(json.dumps({"tokenizer": KNOWN.to_dict()}))
    path.write_bytes(np.array([20240520, 1, 1024], "<i4").tobytes())  # llm.c's header
    assert "val.bin: token 0 has id" in refusal(refused, folder, tmp_path)
    path.write_text("a text, not tokens!!")
    assert "another tokenizer made the text" in refusal(refused, folder, tmp_path)
    path.unlink()
    path.mkdir()
    assert "but no val.bin: prepare it again" in refusal(refused, folder, tmp_path)
    path.rmdir()
    os.mkfifo(path)
    assert "but no val.bin: prepare it again" in refusal(refused, folder, tmp_path)
    path.unlink()
    (folder / "train.bin").rename(path)
    (folder / "meta.json").unlink()
    assert "but no train.bin: prepare it again" in refusal(refused, folder, tmp_path)


def test_an_interrupted_preparation_is_named_and_goes_on(text_file, tmp_path, refused, monkeypatch):
    out = tmp_path / "corpus"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_write", stop)
        assert command.main(["prepare", str(text_file), "--out", str(out)]) == 130
    error = refusal(refused, out, tmp_path)
    assert "preparation was interrupted: give the same `prepare` command again" in error
    assert command.main(["prepare", str(text_file), "--out", str(out)]) == 0
    assert read_prepared(out, None, None, tmp_path).tokenizer.to_dict() == KNOWN.to_dict()


def test_a_resume_on_tokens_of_another_vocabulary_is_refused(
    folder, text_file, tmp_path, refused, run_copy
):
    flags = ["prepare", str(text_file), "--out", str(tmp_path / "bytes"), "--tokenizer", "byte"]
    assert command.main(flags) == 0
    resume = ["--out-dir", run_copy, "--resume", "--data"]
    error = refused(train, *resume, tmp_path / "bytes")
    assert "was prepared with another vocabulary (byte) than that of" in error
    assert "(char): give the text that the run was trained on" in error
    # nanoGPT's folder does not say which vocabulary it has: an id that the run's lacks does.
    (folder / "meta.json").unlink()
    np.full(999, 300, np.uint16).tofile(folder / "train.bin")
    assert "has id 300, but the vocabulary has" in refused(train, *resume, folder)
    assert train.main([*map(str, resume), str(text_file)]) == 0
