"""Named corpora: the real scripts fetch and prepare each record with a small stand-in."""

import io
import json
import re
import shlex
import zipfile

import numpy as np
import pytest

import train
from gptjax import __main__ as command
from gptjax.config import RunConfig
from gptjax.text import corpora, fetching
from gptjax.text.prepared import read_prepared
from gptjax.text.records import CORPORA, Web
from gptjax.text.splitting import read_texts

from standins import prepare_py, stand_in
from strange import CHINESE, EMOJI, HINDI

PREPARE, TRAIN = prepare_py(), train.main
# The byte positions of the cuts are inside characters of three and four bytes.
WIKIPEDIA = ("<page>" + CHINESE + HINDI + EMOJI + "</page>\n").encode() * 7
LETTERS = b" anarchism originated as a term of abuse first used against early" * 20
STORIES = ["Once there was a cat.\nIt slept.", "A dog ran <|home|>.", "\U0001f600 The end."]
END = "\n<|endoftext|>\n"


def stories(*some):
    return (END.join(some) + "\n<|endoftext|>").encode()


CONTENTS = {
    "shakespeare": [b"First Citizen:\nSpeak, speak.\n" * 9],
    "enwik8": [WIKIPEDIA],
    "text8": [LETTERS],
    "tinystories": [stories(*STORIES * 8, "", "Last."), stories("A val story.", "Another.")],
}


@pytest.fixture
def web(tmp_path, monkeypatch):
    """Stand-ins for all corpora; the files that they are fetched from."""
    return {
        name: stand_in(monkeypatch, name, tmp_path / "web", *contents)
        for name, contents in CONTENTS.items()
    }


def prepared(tmp_path, name, *flags):
    """Runs data/prepare.py for a corpus; returns the results and its meta.json."""
    out = tmp_path / "data" / name
    assert PREPARE.main([name, *map(str, flags)], data_dir=tmp_path / "data") == 0
    return read_prepared(out, None, None, tmp_path), json.loads((out / "meta.json").read_text())


@pytest.mark.parametrize("name", CORPORA)
def test_a_record_is_whole(name):
    corpus = CORPORA[name]
    assert corpus.title
    assert corpus.licence
    assert corpus.digest
    assert corpus.split
    assert corpus.tried == (name == "shakespeare"), "the others' sources cannot be reached here"
    for file in corpus.files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.name.endswith(".txt"), "what .gitignore knows"
        web = file.sources[0]
        assert isinstance(web, Web)
        assert web.size == file.size or web.member
    assert list(corpus.cuts) == sorted(corpus.cuts)
    assert all(cut < corpus.size for cut in corpus.cuts)


def test_the_page_of_texts_has_the_table():
    page = (PREPARE.DATA_DIR.parent / "docs" / "texts.md").read_text()
    for name, corpus in CORPORA.items():
        [row] = re.findall(rf"^\| `{name}` .*$", page, re.MULTILINE)
        assert corpus.licence.split(":")[0].split(";")[0] in row
        assert f"{corpus.size / 1e6:,.1f} MB".replace(".0 ", " ") in row
        assert ("not tried here" in row) != corpus.tried


@pytest.mark.parametrize("name", ["enwik8", "text8"])
def test_a_single_text_is_cut_where_the_literature_cuts_it(name, tmp_path, web, capsys):
    [content] = CONTENTS[name]
    found, meta = prepared(tmp_path, name, "--tokenizer", "byte")
    train_text, val_text = (x.astype(np.uint8).tobytes() for x in (found.train, found.val))
    assert content.startswith(train_text + val_text)
    first, second = CORPORA[name].cuts
    assert first <= len(train_text) < first + 4, "at most moved to the end of a character"
    assert second <= len(train_text + val_text) < second + 4
    assert train_text.decode() + val_text.decode()
    assert found.tokenizer.end_id not in np.concatenate([found.train, found.val])
    assert (meta["corpus"], meta["licence"]) == (name, CORPORA[name].licence)
    assert "left out" in meta["split"]
    assert "val_fraction" not in meta
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"--data {tmp_path / 'data' / name}" in captured.out
    assert not (tmp_path / "outside").exists()
    assert sorted(x.name for x in (tmp_path / "data").iterdir()) == [name, f"{name}.txt"]


def test_text8_has_its_characters(tmp_path, web):
    found, _ = prepared(tmp_path, "text8")
    assert found.tokenizer.characters == "".join(sorted(set(LETTERS.decode())))
    assert len(found.train) == CORPORA["text8"].cuts[0]


def test_stories_are_documents_of_their_own_files(tmp_path, web):
    found, meta = prepared(tmp_path, "tinystories", "--tokenizer", "byte")
    assert found.tokenizer.start_id == found.tokenizer.end_id
    for tokens, expected in ((found.train, [*STORIES * 8, "Last."]), (found.val, None)):
        texts = found.tokenizer.decode(tokens).split("<|endoftext|>")
        assert texts == [*(expected or ["A val story.", "Another."]), ""]
        assert (tokens == found.tokenizer.end_id).sum() == len(texts) - 1
    assert (meta["train"]["documents"], meta["val"]["documents"]) == (25, 2)


def test_each_corpus_has_a_tokenizer_of_its_own(tmp_path, web):
    assert prepared(tmp_path, "enwik8")[1]["tokenizer"]["type"] == "byte"
    pytest.importorskip("tokenizers", reason="needs the extra `data`")
    assert prepared(tmp_path, "tinystories", "--vocab-size", 270)[1]["tokenizer"]["type"] == "bpe"


def test_tiny_shakespeare_can_be_prepared_too(tmp_path, web):
    data = tmp_path / "data"
    assert PREPARE.main([], data_dir=data) == 0
    assert [x.name for x in data.iterdir()] == ["shakespeare.txt"]
    assert PREPARE.main(["--out", str(data / "tokens"), "--tokenizer", "byte"], data_dir=data) == 0
    found = read_prepared(data / "tokens", None, None, tmp_path)
    [content] = CONTENTS["shakespeare"]
    assert len(found.train) == int(0.9 * len(content))
    assert len(found.train) + len(found.val) == len(content)


def test_the_name_of_a_corpus_leads_to_the_command_that_prepares_it(
    tmp_path, web, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "main", lambda argv: TRAIN(argv, data_dir=tmp_path / "data"))
    error = refused(train, "--data", "text8", "--out-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    [line] = re.findall("`(.*)`", error)
    words = shlex.split(line)
    assert words[-2:] == ["prepare", "text8"]
    assert command.main(words[-2:]) == 0
    run_config = RunConfig().replace(data="text8", block_size=8)
    texts = read_texts(run_config, tmp_path / "data", print)
    assert texts.source == str(tmp_path / "data" / "text8")
    # For another data folder, the command includes --out.
    with pytest.raises(ValueError, match=f"--out {tmp_path / 'else' / 'text8'}`"):
        read_texts(run_config, tmp_path / "else", print)
    # A file of that name keeps its meaning.
    (tmp_path / "text8").write_text("a text of somebody's own\n" * 9)
    assert "somebody" in read_texts(run_config, tmp_path / "data", print).beginning
    assert command.main(["prepare", "text8"]) == 2, "--out is missing for a file"


def said(capsys, status, *argv, data_dir):
    """Runs data/prepare.py, which must print one line to stderr; returns the line."""
    capsys.readouterr()
    assert PREPARE.main([str(x) for x in argv], data_dir=data_dir) == status
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    return error


def test_wrong_arguments_are_one_line_and_fetch_nothing(tmp_path, web, capsys, monkeypatch):
    data = tmp_path / "data"
    for argv, message in (
        (["enwik9"], "give one of shakespeare, enwik8, text8, tinystories, not enwik9; files and"),
        (["enwik8", "text8"], "not enwik8 text8"),
        (["enwik8", "--tokenizer", "words"], "must be one of char, byte, bpe, gpt2"),
        (["enwik8", "--vocab-size", "300"], "add --tokenizer bpe"),
        (["enwik8", "--out", web["enwik8"][0]], "is a file: give the path of a folder"),
        (["enwik8", "--val-fraction", "0.1"], "unknown flag --val-fraction"),
    ):
        assert message in said(capsys, 2, *argv, data_dir=data)
    monkeypatch.chdir(tmp_path)
    assert command.main(["prepare", "enwik8", "--val-fraction", "0.1"]) == 2
    assert "--val-fraction is not for enwik8: leave it out" in capsys.readouterr().err
    assert not data.exists()
    assert command.main(["prepare", "enwik8"]) == 0
    assert "--overwrite replaces it" in said(capsys, 2, "enwik8", data_dir=data)
    assert PREPARE.main(["enwik8", "--overwrite"], data_dir=data) == 0


def rezipped(path, name, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: rezipped(path, "enwik9", WIKIPEDIA), "the archive has no file 'enwik8'"),
        (lambda path: rezipped(path, "enwik8", WIKIPEDIA[:-9]), "bytes instead of"),
        (lambda path: rezipped(path, "enwik8", WIKIPEDIA[:-1] + b"!"), "sha256 "),
        (
            lambda path: path.write_bytes(path.read_bytes()[:200]),
            "200 bytes that are not a complete zip",
        ),
        (lambda path: path.write_bytes(b"<html>captive</html>"), "that are not a complete zip"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_a_wrong_archive_is_one_line_and_leaves_nothing(damage, message, tmp_path, web, capsys):
    damage(web["enwik8"][0])
    error = said(capsys, 2, "enwik8", data_dir=tmp_path / "data")
    file = CORPORA["enwik8"].files[0]
    for part in (message, "no source of enwik8 answered", f"{file.size:,} bytes", file.sha256):
        assert part in error
    assert f"bring the file by hand to {tmp_path}/data/enwik8.txt (from 'enwik8' in file:" in error
    assert not (tmp_path / "data").exists()


def test_more_than_what_is_wanted_is_not_read_on(tmp_path, web, capsys):
    """An archive of a few kB can unpack to far more than the disk has room for."""
    rezipped(web["enwik8"][0], "enwik8", WIKIPEDIA * 1000)
    web_size = web["enwik8"][0].stat().st_size
    corpus = CORPORA["enwik8"]
    [file] = corpus.files
    larger = file.sources[0]._replace(size=web_size)
    CORPORA["enwik8"] = corpus._replace(files=(file._replace(sources=(larger,)),))
    error = said(capsys, 2, "enwik8", data_dir=tmp_path / "data")
    assert f"more than {file.size:,} bytes instead of {file.size:,}" in error
    assert not (tmp_path / "data").exists()


def test_of_two_files_each_is_verified_and_fetched_once(tmp_path, web, capsys, monkeypatch):
    data = tmp_path / "data"
    web["tinystories"][1].write_bytes(b"else")
    error = said(capsys, 2, "tinystories", "--tokenizer", "byte", data_dir=data)
    assert "no source of tinystories-valid.txt of TinyStories answered" in error
    assert [x.name for x in data.iterdir()] == ["tinystories-train.txt"]
    web["tinystories"][1].write_bytes(CONTENTS["tinystories"][1])
    web["tinystories"][0].unlink()  # it is there
    prepared(tmp_path, "tinystories", "--tokenizer", "byte")
    (data / "tinystories-train.txt").write_bytes(b"changed")
    flags = ["tinystories", "--out", tmp_path / "out", "--tokenizer", "byte"]
    error = said(capsys, 2, *flags, data_dir=data)
    assert "tinystories-train.txt is not tinystories-train.txt of TinyStories: its" in error
    assert "delete it to have it fetched again" in error
    assert not (tmp_path / "out").exists()


def test_an_interrupted_fetch_leaves_nothing(tmp_path, web, monkeypatch):
    def interrupted(url, size):
        yield LETTERS[:50]
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "from_web", interrupted)
    assert PREPARE.main(["tinystories"], data_dir=tmp_path / "data") == 130
    assert list((tmp_path / "data").iterdir()) == []


def test_a_full_disk_is_not_a_source_that_does_not_answer(tmp_path, web, monkeypatch, capsys):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(corpora, "whole_file", full)
        error = said(capsys, 1, "enwik8", data_dir=tmp_path / "data")
    assert "data/enwik8.txt: No space left on device" in error

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:  # the archive itself does not fit
        patch.setattr(fetching.tempfile, "TemporaryFile", lambda **_: Full())
        error = said(capsys, 1, "enwik8", data_dir=tmp_path / "data")
    assert "data: No space left on device" in error
    assert list((tmp_path / "data").iterdir()) == []


def test_how_far_a_long_fetch_is(tmp_path, web, monkeypatch, capsys):
    monkeypatch.setattr(corpora, "TELL_EVERY", -1)
    prepared(tmp_path, "text8")
    assert re.search(r"^0 of 0 MB$", capsys.readouterr().out, re.MULTILINE)
