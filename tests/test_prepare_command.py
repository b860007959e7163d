"""The command `prepare`: what it writes, refuses, continues and overwrites."""

import json

import pytest

from gptjax.errors import InputError
from gptjax.text import preparing

from preparations import TEXT, documents, opened, run, said


def test_the_command(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    out = tmp_path / "out"
    assert run(tmp_path / "text.txt", "--out", out, "--tokenizer", "byte") == 0
    captured = capsys.readouterr()
    assert "train.bin" in captured.out
    assert f"--data {out}" in captured.out
    assert captured.err == ""
    assert "--overwrite replaces it" in said(capsys, 2, tmp_path / "text.txt", "--out", out)
    flags = ["--out", out, "--tokenizer", "char", "--val-fraction", "0.3", "--overwrite"]
    assert run(*flags, tmp_path / "text.txt") == 0
    meta = json.loads((out / "meta.json").read_text())
    assert (meta["tokenizer"]["type"], meta["val_fraction"]) == ("char", 0.3)
    assert 0.2 < meta["val"]["bytes"] / len(TEXT.encode()) < 0.4


def test_wrong_arguments_are_one_line_and_make_nothing(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "empty").mkdir()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "val.bin").write_bytes(b"x")
    text, out = tmp_path / "text.txt", ["--out", tmp_path / "out"]
    for argv, message in (
        ([*out], "needs the files or folders"),
        ([text], "--out is missing: give"),
        ([tmp_path / "empty", *out], "found no text file in"),
        ([tmp_path / "gone", *out], "no such file or folder"),
        ([tmp_path / "bad.txt", *out], "bad.txt"),
        ([text, "--out", text], "is a file: give the path of a folder"),
        ([text, "--out", tmp_path / "held"], "move that away, or give another --out"),
        ([text, *out, "--val-fraction", "1"], "--val-fraction (1.0) must be above 0 and below 1"),
        ([text, *out, "--tokenizer", "words"], "must be one of char, byte, bpe, gpt2"),
        ([text, *out, "--vocab-size", "300"], "add --tokenizer bpe"),
        ([text, *out, "--no-such"], "unknown flag --no-such"),
    ):
        assert message in said(capsys, 2, *argv)
    assert not (tmp_path / "out").exists()
    documents(tmp_path / "many", 120)
    error = said(capsys, 2, tmp_path / "many", *out, "--val-fraction", "1e-9")
    assert "choose another --val-fraction than 1e-09" in error
    assert run(tmp_path / "many", *out) == 0


def test_the_beginning_of_another_corpus_is_not_gone_on_with(tmp_path, capsys, monkeypatch):
    source = documents(tmp_path / "a", 120)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_write", stop)
        assert run(source, "--out", tmp_path / "out") == 130
    assert "the same command continues" in capsys.readouterr().out
    flags = ["--out", tmp_path / "out", "--tokenizer", "byte"]
    assert "--overwrite removes it" in said(capsys, 2, source, *flags)
    assert run(source, *flags, "--overwrite") == 0
    with pytest.raises(InputError):
        preparing.check_out(tmp_path / "out")


def test_what_cannot_be_prepared_costs_no_other_corpus(tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "bad.txt").write_bytes(TEXT.encode() + b"\xff")
    out = ["--out", tmp_path / "out"]
    assert run(tmp_path / "text.txt", *out) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for argv in (
        [tmp_path / "gone"],
        [tmp_path / "bad.txt"],
        [tmp_path / "text.txt", "--tokenizer", "words"],
    ):
        said(capsys, 2, *argv, *out, "--overwrite")
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    def stop(*_):
        raise KeyboardInterrupt

    flags = [tmp_path / "text.txt", *out, "--tokenizer", "byte"]
    with monkeypatch.context() as patch:  # from here on, the old one is gone
        patch.setattr(preparing, "_write", stop)
        assert run(*flags, "--overwrite") == 130
    assert not {"meta.json", "train.bin"} & {x.name for x in (tmp_path / "out").iterdir()}
    assert run(*flags) == 0
    assert opened(tmp_path / "out").tokenizer.kind == "byte"


def test_the_folder_may_be_within_one_that_is_read(tmp_path, capsys, monkeypatch):
    """Once, an interrupted `prepare . --out corpus` took its own preparing.json for a text."""
    source = documents(tmp_path / "a", 3)
    flags = [source, "--out", source / "corpus", "--tokenizer", "byte"]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_write", stop)
        assert run(*flags) == 130
    assert run(*flags) == 0
    meta = (source / "corpus" / "meta.json").read_bytes()
    assert json.loads(meta)["documents"] == 3
    assert run(*flags, "--overwrite") == 0
    assert (source / "corpus" / "meta.json").read_bytes() == meta
    error = said(capsys, 2, source / "corpus", "--out", source / "corpus", "--overwrite")
    assert "found no text file in" in error
    error = said(capsys, 2, source / "corpus", "--out", tmp_path / "again")
    assert f"contains prepared text: give it to train.py, as --data {source / 'corpus'}" in error
    assert opened(source / "corpus").tokenizer.kind == "byte"
    # The texts may be in the folder itself, too.
    (source / "corpus").rename(tmp_path / "corpus")
    for flags in ([], ["--overwrite"]):
        assert run(source, "--out", source, "--tokenizer", "byte", *flags) == 0
        assert (source / "meta.json").read_bytes() == meta


def test_prepared_text_in_a_folder_is_no_text(tmp_path, capsys):
    source = documents(tmp_path / "a", 3)
    assert run(source, "--out", tmp_path / "one", "--tokenizer", "byte") == 0
    for name in ("other", "more/another"):
        assert run(source, "--out", source / name, "--tokenizer", "byte") == 0
    (source / "more" / "meta.json").write_text("{}")  # not beside prepared text
    assert run(source, "--out", tmp_path / "again", "--tokenizer", "byte") == 0
    assert "meta.json" in capsys.readouterr().out
    one, again = opened(tmp_path / "one"), opened(tmp_path / "again")
    assert sum(again.bytes) == sum(one.bytes) + len("{}")


def test_only_what_was_made_here_is_overwritten(tmp_path, capsys):
    """A nanoGPT folder whose meta.json was made from its pickle belongs to the user."""
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "out").mkdir()
    for name, content in (("train.bin", "x"), ("meta.json", '{"tokenizer": {}}')):
        (tmp_path / "out" / name).write_text(content)
    flags = [tmp_path / "text.txt", "--out", tmp_path / "out", "--overwrite"]
    assert "contains a train.bin from elsewhere" in said(capsys, 2, *flags)
    (tmp_path / "out" / "train.bin").unlink()
    assert "contains a meta.json from elsewhere" in said(capsys, 2, *flags)
    assert [x.name for x in (tmp_path / "out").iterdir()] == ["meta.json"]
