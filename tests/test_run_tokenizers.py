"""Runs with each tokenizer and the real scripts: train, resume, sample, stream, score."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tty
from pathlib import Path

import numpy as np
import pytest
from test_resume import stop_and_resume

import sample
import train
from gptjax.app import train as story
from gptjax.loss import bits_per_byte
from gptjax.store import runs
from gptjax.text.bpe import byte_characters
from gptjax.text.byte_level import END_OF_TEXT
from gptjax.text.tokenizers import check_tokenizer

from conftest import tiny
from outcomes import TIMES, assert_same_state, go, metrics
from strange import CHINESE, EMOJI, HINDI

ROOT = Path(train.__file__).parent
TEXTS = {"Chinese": CHINESE * 12, "Hindi": HINDI * 12, "emoji": EMOJI * 12}
LANGUAGES = (*TEXTS, "tiny Shakespeare")
CORPUS = ROOT / "data" / "shakespeare.txt"
# One is quick; each is a vocabulary of its own, and so a compilation of its own.
QUICK = ("byte", "emoji")


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """Makes the folder of a vocabulary like GPT-2's, without the package."""
    folder = tmp_path_factory.mktemp("vocabulary")
    tokens = [*byte_characters(), "Ġt", "he", "Ġthe", END_OF_TEXT]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\nĠt he\n")
    return folder


def flags_of(kind, vocabulary):
    """The flags that choose a tokenizer."""
    if kind != "byte":
        pytest.importorskip("tokenizers", reason="needs the extra `data`")
    return {
        "byte": ["--tokenizer", "byte"],
        "bpe": ["--tokenizer", "bpe", "--vocab-size", "290"],
        "gpt2": ["--tokenizer", str(vocabulary)],
    }[kind]


def text_of(language):
    if language in TEXTS:
        return TEXTS[language]
    if not CORPUS.exists():
        pytest.skip("data/prepare.py fetches the text")
    return CORPUS.read_text()


@pytest.mark.parametrize(
    ("kind", "language"),
    [
        pair if pair == QUICK else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product(("byte", "bpe", "gpt2"), LANGUAGES)
    ],
)
def test_a_run_trains_resumes_bit_for_bit_samples_and_scores(
    kind, language, vocabulary, tmp_path, capsys
):
    text_file, text = tmp_path / "text.txt", text_of(language)
    text_file.write_text(text)
    flags = [*flags_of(kind, vocabulary), "--eval-iters", "20"]
    whole = tmp_path / "whole"
    assert go(whole, text_file, *flags) == 0
    captured = capsys.readouterr()
    assert f" ids ({kind}) of " in captured.out
    assert "bits per byte)" in captured.out

    # A resume reads the vocabulary from the run: the folder of GPT-2's may be gone.
    stop_and_resume(tmp_path / "parts", text_file, *flags)
    assert_same_state(tmp_path / "parts", whole)

    run_config, tokenizer = runs.read_run(whole)
    assert (run_config.tokenizer, tokenizer.kind) == (kind, kind)
    assert run_config.model.vocab_size == tokenizer.vocab_size
    val = text[int(0.9 * len(text)) :]
    each = len(val.encode()) / len(tokenizer.encode(val))
    last = metrics(whole, *TIMES)[-1]
    assert np.isclose(last["val_bits_per_byte"], bits_per_byte(last["val_loss"], each), atol=1e-5)

    capsys.readouterr()
    prompt = text[:5]
    asked = ["--out-dir", str(whole), "--max-new-tokens", "30", "--num-samples", "2"]
    assert sample.main([*asked, "--prompt", prompt, "--stop", END_OF_TEXT]) == 0
    assert capsys.readouterr().out.count(prompt) >= 2
    assert sample.main(asked) == 0
    capsys.readouterr()
    text = text[-20_000:]
    text_file.write_text(text)
    assert sample.main(["--out-dir", str(whole), "--score", str(text_file)]) == 0
    found = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    nats = float(found["loss"].split()[0])
    expected = bits_per_byte(nats, len(text.encode()) / len(tokenizer.encode(text)))
    assert abs(float(found["bits per byte"]) - expected) < 1e-3


def on_a_terminal(*flags):
    """What sample.py writes to a terminal: its text, in the parts in which it came."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)  # a newline stays one
    process = subprocess.Popen(
        [sys.executable, ROOT / "sample.py", *map(str, flags)],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    parts = []
    with process, contextlib.suppress(OSError):  # EIO: the other end is closed
        while part := os.read(ours, 2**16):
            parts.append(part)
    os.close(ours)
    assert process.returncode == 0
    return parts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "language"),
    [
        ("byte", "Chinese"),
        ("byte", "Hindi"),
        ("byte", "emoji"),
        ("bpe", "Hindi"),
        ("gpt2", "emoji"),
    ],
)
def test_a_terminal_never_shows_half_a_character(kind, language, vocabulary, tmp_path, capsys):
    """The model has learned the text, so that most of its bytes form characters."""
    text_file = tmp_path / "text.txt"
    text_file.write_text(TEXTS[language])
    flags = ["--n-embd", 32, "--block-size", 32, "--batch-size", 16, "--dropout", 0]
    flags += ["--max-iters", 400, "--eval-interval", 400, "--learning-rate", 1e-2]
    assert go(tmp_path / "run", text_file, *flags_of(kind, vocabulary), *flags) == 0
    asked = ["--out-dir", tmp_path / "run", "--max-new-tokens", 300, "--temperature", 0.5]
    capsys.readouterr()
    assert sample.main([str(x) for x in asked]) == 0
    whole = capsys.readouterr().out
    assert sum(ord(x) > 127 for x in whole) > 30
    assert whole.count("\N{REPLACEMENT CHARACTER}") < 10
    parts = on_a_terminal(*asked)
    assert b"".join(parts).decode() == whole
    assert len(parts) > 5, "it is streamed"
    for part in parts:
        part.decode()  # each write is whole characters


def test_with_characters_bits_per_byte_count_the_bytes_of_a_character(tmp_path):
    text = CHINESE * 12
    (tmp_path / "text.txt").write_text(text)
    assert go(tmp_path / "run", tmp_path / "text.txt", "--max-iters", 1) == 0
    line = metrics(tmp_path / "run")[-1]
    val = text[int(0.9 * len(text)) :]
    bits = bits_per_byte(line["val_loss"], len(val.encode()) / len(val))
    assert np.isclose(line["val_bits_per_byte"], bits, atol=1e-5)
    assert bits < line["val_loss"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--tokenizer", "words"], "--tokenizer 'words' must be one of char, byte, bpe, gpt2"),
        (["--tokenizer", "."], "--tokenizer .: the folder has no vocabulary"),
        (["--vocab-size", "300"], "add --tokenizer bpe, or leave it out"),
        (["--tokenizer", "bpe", "--vocab-size", "256"], "--vocab-size (256) must be from 257"),
        (["--tokenizer", "bpe", "--vocab-size", str(2**30)], "must be from 257"),
    ],
)
def test_a_wrong_tokenizer_is_one_line(flags, named, refused, tmp_path, text_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused(train, *tiny("--data", text_file, "--out-dir", tmp_path / "run"), *flags)
    assert named in error
    assert not (tmp_path / "run").exists()


def test_a_size_is_for_a_vocabulary_that_is_learned():
    """Follows the advice: adds the missing flag, or leaves out the other."""
    check_tokenizer("bpe", 300)
    check_tokenizer(None, None)


def test_another_tokenizer_contradicts_the_run(finished_run, refused):
    resume = ["--out-dir", finished_run, "--resume"]
    assert "--tokenizer byte contradicts the run" in refused(train, *resume, "--tokenizer", "byte")
    assert story.main([*map(str, resume), "--tokenizer", "char"]) == 0


def test_a_missing_package_is_asked_for_before_anything_is_made(
    refused, tmp_path, text_file, monkeypatch
):
    """Follows the advice: the message's command installs the extra's package."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    flags = tiny("--data", text_file, "--out-dir", tmp_path / "run", "--tokenizer", "bpe")
    error = refused(train, *flags)
    assert "--tokenizer bpe needs the package tokenizers: `" in error
    assert "-m pip install 'tokenizers>=0.20,<1'`" in error
    assert not (tmp_path / "run").exists()
