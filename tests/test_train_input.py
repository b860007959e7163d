"""Every wrong input to train.py: one line, status 2, nothing lost."""

from functools import partial
from pathlib import Path

import pytest

import train
from gptjax.app.train_flags import parse
from gptjax.store import runs
from gptjax.text import fetching
from gptjax.text.corpora import CORPORA
from gptjax.text.shell import found

from conftest import TEXT, TINY

BAD_FLAGS = [
    (["--n-layr", "3"], ["--n-layr", "did you mean --n-layer?"]),
    (["stray"], ["'stray'"]),
    (["--n-layer", "x"], ["--n-layer", "'x'", "whole number"]),
    (["--n-layer", "1.5"], ["--n-layer", "'1.5'", "whole number"]),
    (["--n-layer"], ["--n-layer", "expected one argument"]),
    (["--n-layer", "0"], ["--n-layer (0)", "at least 1"]),
    (["--n_head", "-3"], ["--n-head (-3)", "at least 1"]),
    (["--max-iters", "0"], ["--max-iters (0)", "at least 1"]),
    (["--batch-size", "0"], ["--batch-size (0)", "at least 1"]),
    (["--batch-size", "4", "--micro-batch-size", "3"], ["--micro-batch-size (3)", "(4)"]),
    (["--micro-batch-size", "-1"], ["--micro-batch-size (-1)", "at least 0"]),
    (["--block-size", "0"], ["--block-size (0)", "at least 1"]),
    (["--n-embd", "100", "--n-head", "6"], ["--n-embd (100)", "n_head (6)"]),
    (["--dropout", "1"], ["--dropout (1.0)", "less than 1"]),
    (["--dropout", "nan"], ["--dropout (nan)", "finite"]),
    (["--learning-rate", "inf"], ["--learning-rate (inf)", "finite"]),
    (["--learning-rate", "-1e-3"], ["--learning-rate (-0.001)", "at least 0"]),
    (["--weight-decay", "-1"], ["--weight-decay (-1.0)", "at least 0"]),
    (["--activation", "tanh"], ["--activation", "'tanh'", "relu, gelu, gelu_tanh"]),
    (["--dtype", "float16"], ["--dtype", "'float16'", "float32, bfloat16"]),
    (["--preset", "nope"], ["'nope'", "shakespeare-cpu"]),
    (["--seed", "-1"], ["--seed (-1)"]),
    (["--preset", "bigram", "--remat"], ["--remat (True)", "'bigram'"]),
    (["--overwrite", "--resume"], ["--overwrite"]),
    (["--out-dir", ""], ["--out-dir"]),
]


@pytest.mark.parametrize(("flags", "named"), BAD_FLAGS, ids=[" ".join(f) for f, _ in BAD_FLAGS])
def test_bad_flags_are_named_with_their_rule(refused, flags, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused(train, *flags)
    for part in named:
        assert part in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"a\0b" * 50, "binary"),
        (b"caf\xe9" * 50, "not UTF-8"),
        (b"ab" * 40, "block_size of at most 7"),
    ],
)
def test_bad_data_files(refused, tmp_path, content, named):
    path = tmp_path / "data.txt"
    if content is not None:
        path.write_bytes(content)
    error = refused(train, *TINY, "--data", path, "--out-dir", tmp_path / "run")
    assert named in error
    assert not (tmp_path / "run").exists()


def test_a_folder_as_data(refused, tmp_path):
    assert "is a directory" in refused(train, "--data", tmp_path, "--out-dir", tmp_path / "run")


def test_no_source_of_the_corpus(refused, tmp_path, monkeypatch):
    def down(*_):
        raise OSError("unreachable")

    monkeypatch.setattr(train, "main", partial(train.main, data_dir=tmp_path / "data"))
    monkeypatch.setattr(fetching, "from_web", down)
    monkeypatch.setattr(fetching, "from_wheel", down)
    error = refused(train, "--out-dir", tmp_path / "run")
    assert "by hand" in error
    assert not (tmp_path / "run").exists()


def test_out_dirs_that_will_not_do(refused, tmp_path, run_copy, text_file):
    def error(path, *flags):
        return refused(train, *TINY, "--data", text_file, "--out-dir", path, *flags)

    assert "contains a run: --resume" in error(run_copy)
    assert "is a file" in error(text_file)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.jsonl").write_text("years of work")
    for flags in ([], ["--overwrite"]):
        assert "would overwrite its metrics.jsonl" in error(tmp_path / "full", *flags)
    assert (tmp_path / "full" / "metrics.jsonl").read_text() == "years of work"
    assert "no such folder" in refused(train, "--out-dir", tmp_path / "nope", "--resume")
    assert "contains no run" in refused(train, "--out-dir", tmp_path / "full", "--resume")
    assert (runs.read_run(run_copy)[0].train.max_iters) == 6


def test_no_permission_to_write(refused, tmp_path, text_file, monkeypatch):
    """The tests may run as root, who ignores permissions, so the error is simulated."""
    locked = tmp_path / "locked"

    def mkdir(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    error = refused(train, *TINY, "--data", text_file, "--out-dir", locked)
    assert str(locked) in error
    assert "Permission denied" in error


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--n-layer", "2"], ["--n-layer 2", "has 1"]),
        (["--optimizer", "muon"], ["--optimizer muon"]),
        (["--seed", "3"], ["--seed 3"]),
        (["--preset", "shakespeare"], ["--preset shakespeare"]),
        (["--dtype", "bfloat16"], ["--dtype bfloat16"]),
        (["--max-iters", "5"], ["--max-iters 5", "can only extend"]),
    ],
)
def test_flags_that_contradict_the_run(refused, run_copy, flags, named):
    before = (run_copy / "config.json").read_bytes()
    error = refused(train, "--out-dir", run_copy, "--resume", *flags)
    for part in named:
        assert part in error
    assert (run_copy / "config.json").read_bytes() == before


def test_another_text_contradicts_the_run(refused, run_copy, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TEXT + "!")
    error = refused(train, "--out-dir", run_copy, "--resume", "--data", other)
    assert "another text" in error


def test_repeating_what_the_run_has_is_no_contradiction(run_copy):
    assert train.main(["--out-dir", str(run_copy), "--resume", "--n-layer", "1"]) == 0


def test_no_flags_at_all(refused, tmp_path, monkeypatch):
    """The README's first command: this backend's preset, and the corpus (not reachable)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "main", partial(train.main, data_dir=tmp_path))
    (tmp_path / CORPORA["shakespeare"].files[0].name).write_text("another text")
    assert "is not tiny Shakespeare" in refused(train)
    assert parse([], found()) == {}
    assert parse(["--preset", "shakespeare", "--n_layer=3"], found()) == {
        "preset": "shakespeare",
        "n_layer": 3,
    }
