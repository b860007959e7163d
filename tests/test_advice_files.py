"""Follows the advice in errors about texts, GPT-2 folders and output files."""

import hashlib
import io
import re
import shutil
import sys
from pathlib import Path

import pytest

import sample
import train
from gptjax.app.train_flags import parse
from gptjax.errors import InputError
from gptjax.text import corpora
from gptjax.text.reading import read_text
from gptjax.text.shell import found

from advice import SHORT, bash, refusal, ticked, works
from conftest import TEXT, tiny
from gpt2_folders import make_folder


def test_a_text_that_is_not_there(text_file, tmp_path, monkeypatch):
    new = tiny(*SHORT, "--out-dir", tmp_path / "run", "--overwrite")[:-1]
    (tmp_path / "empty").write_text("")
    for wrong, said in (
        (tmp_path / "gone", "give the path of a text file, `-` for standard input, or"),
        (tmp_path / "empty", "give a file with text in it"),
        (tmp_path, "give the path of one text file"),
    ):
        assert said in refusal(train, *new, "--data", wrong)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", None)  # a script would have opened the null device instead
        with pytest.raises(InputError, match="closed: give the path"):
            read_text("-")
    works(train, *new, "--data", text_file)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    works(train, *new, "--data", "-", "--overwrite")
    told = refusal(train, *new, "--data", tmp_path / "gone", "--overwrite")
    [name] = re.findall("or '(.*)' for the corpus", told)
    assert name in corpora.CORPORA


def test_a_part_of_a_text_that_is_too_large(text_file, tmp_path, monkeypatch):
    monkeypatch.setattr("gptjax.text.reading.MAX_BYTES", 1000)
    new = tiny(*SHORT, "--out-dir", tmp_path / "run", "--data")
    assert "give a part of it" in refusal(train, *new, text_file)
    (tmp_path / "part").write_bytes(text_file.read_bytes()[:900])
    works(train, *new, tmp_path / "part")


def test_a_corpus_that_cannot_be_fetched(tmp_path, monkeypatch, text_file):
    def down(*_):
        raise OSError("unreachable")

    data = TEXT.encode()
    known = corpora.CORPORA["shakespeare"]
    sha256 = hashlib.sha256(data).hexdigest()
    known = known._replace(files=(known.files[0]._replace(size=len(data), sha256=sha256),))
    monkeypatch.setitem(corpora.CORPORA, "shakespeare", known)
    monkeypatch.setattr("gptjax.text.fetching.from_web", down)
    monkeypatch.setattr("gptjax.text.fetching.from_wheel", down)
    folder = tmp_path / "data"
    with pytest.raises(InputError, match="bring the file by hand") as caught:
        corpora.load_text("shakespeare", folder)
    path = Path(re.findall(r"by hand to (\S+) \(", str(caught.value))[0])
    path.parent.mkdir()
    shutil.copy(text_file, path)
    assert corpora.load_text("shakespeare", folder).text == TEXT
    assert "with --data" in str(caught.value)
    assert corpora.load_text(str(text_file), folder).text == TEXT


def test_a_corpus_that_is_another_text(tmp_path, monkeypatch):
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / "shakespeare.txt").write_text("another text")
    with pytest.raises(InputError, match="delete it to have it fetched again") as caught:
        corpora.load_text("shakespeare", folder)
    command = str(caught.value).split("train on it with ")[1]
    words = bash(f"printf '%s\\n' {command}").stdout.splitlines()
    assert corpora.load_text(parse(words, found())["data"], folder).text == "another text"


def test_a_text_that_is_too_short(tmp_path):
    (tmp_path / "short").write_text("ab" * 40)
    new = tiny(*SHORT, "--data", tmp_path / "short", "--out-dir", tmp_path / "run")
    [size] = re.findall(r"use a block_size of at most (\d+)", refusal(train, *new))
    works(train, *tiny(*SHORT, "--block-size", size, *new[-4:]))
    (tmp_path / "short").write_text("ab")
    new[-1] = tmp_path / "another"
    assert "use a longer text" in refusal(train, *new)


def test_a_place_for_log_probabilities(finished_run, tmp_path):
    flags = ["--out-dir", finished_run, "--max-new-tokens", 2, "--logprobs"]
    assert "give the path of a file" in refusal(sample, *flags, tmp_path)
    assert "no such folder" in refusal(sample, *flags, tmp_path / "a" / "b")
    (tmp_path / "a").mkdir()
    works(sample, *flags, tmp_path / "a" / "b")


def test_a_missing_package_is_installed_by_the_command(tmp_path, monkeypatch):
    """pip must get the requirement as one argument, including `<`."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    error = refusal(sample, "--from-huggingface", tmp_path)
    [command] = ticked(error)
    of_train = refusal(train, "--init-from", tmp_path, "--out-dir", tmp_path / "run")
    assert of_train.partition("error: ")[2] == error.partition("error: ")[2]
    words = bash(f"printf '%s\\n' {command}").stdout.splitlines()
    assert words[1:4] == ["-m", "pip", "install"]
    assert re.fullmatch(r"safetensors>=[\d.]+,<[\d.]+", words[4])
    assert len(words) == 5


def program_of(folder: Path, name: str, script: str) -> Path:
    """A folder with a program of this name that runs lines of bash, for PATH."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / name).write_text(f"#!/bin/bash\nset -e\n{script}")
    (programs / name).chmod(0o755)
    return programs


def test_a_gpt2_is_downloaded_by_the_command(tmp_path):
    """A program replaces `hf download`, because a test cannot reach the hub."""
    model, folder = tmp_path / "hub", tmp_path / "my gpt2's"
    model.mkdir()
    make_folder(model)
    programs = program_of(
        tmp_path,
        "hf",
        "[ $1 = download ]\n[ $2 = openai-community/gpt2 ]\n"
        f'for last; do :; done\nmkdir -p "$last"\ncp {model}/* "$last"\n',
    )
    works_with = ["--from-huggingface", folder, "--max-new-tokens", 2]
    for gone in ((), ("model.safetensors",), ("vocab.json", "merges.txt")):
        for name in gone:
            (folder / name).unlink()
        error = refusal(sample, *works_with)
        done = bash(ticked(error)[0], programs)
        assert done.returncode == 0, (error, done.stderr)
        works(sample, *works_with)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("pruned")
    assert "does not exist: download it again" in refusal(sample, *works_with)


def test_a_pointer_is_pulled_by_the_command(tmp_path):
    folder = tmp_path / "a clone"
    folder.mkdir()
    make_folder(folder)
    weights = (folder / "model.safetensors").rename(tmp_path / "weights")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    programs = program_of(
        tmp_path, "git", f'[ "$1 $3 $4" = "-C lfs pull" ]\ncp {weights} "$2/model.safetensors"\n'
    )
    done = bash(ticked(refusal(sample, "--from-huggingface", folder))[0], programs)
    assert done.returncode == 0, done.stderr
    works(sample, "--from-huggingface", folder, "--max-new-tokens", 2)


def test_flags_of_sample_py(finished_run, text_file, tmp_path, capsys):
    flags = ["--out-dir", finished_run, "--max-new-tokens", 2]
    assert "give the text to stop at" in refusal(sample, *flags, "--stop", "")
    works(sample, *flags, "--stop", "fox")
    assert "can never appear" in refusal(sample, *flags, "--stop", "X")
    error = refusal(sample, *flags, "--prompt", "a", "--prompt-file", text_file)
    assert "give one" in error
    works(sample, *flags, "--prompt", "a")
    works(sample, *flags, "--prompt-file", text_file)
    assert "or leave out --stride" in refusal(sample, *flags, "--stride", 2)
    works(sample, *flags)
    score = ["--out-dir", finished_run, "--score", text_file]
    works(sample, *score, "--stride", 2)
    assert "--prompt is for samples" in refusal(sample, *score, "--prompt", "a")
    works(sample, *score)
    folder = tmp_path / "gpt2"
    folder.mkdir()
    make_folder(folder)
    gpt2 = ["--from-huggingface", folder, "--max-new-tokens", 2]
    for more in (["--out-dir", finished_run], ["--step", "3"]):
        assert "leave out --out-dir and --step" in refusal(sample, *gpt2, *more)
    works(sample, *gpt2)
