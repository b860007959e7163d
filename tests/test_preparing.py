"""Prepared text has the same tokens as in memory, for any order, interruption or disk error."""

import errno

import numpy as np
import pytest

from gptjax.config import RunConfig
from gptjax.data import split
from gptjax.text import dividing, preparing
from gptjax.text.documents import Documents, find
from gptjax.text.preparing import Wanted
from gptjax.text.splitting import read_texts
from gptjax.tokenizer import CharTokenizer

from preparations import TEXT, documents, opened

BYTES = Wanted("byte", 0, 0.1)


def prepare(out, source, wanted=BYTES, **options):
    return preparing.prepare(
        Documents(find([str(source)])), out, wanted, out.parent, lambda _: None, **options
    )


def texts_of(found, tokens):
    """The documents in a split."""
    text = found.tokenizer.decode(tokens)
    assert text.endswith("<|endoftext|>")
    return text.split("<|endoftext|>")[:-1]


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "gpt2"])
def test_one_text_is_prepared_to_the_tokens_that_it_has_in_memory(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("gptjax.text.documents.PIECE", 40)
    (tmp_path / "text.txt").write_text(TEXT)
    name = kind
    if kind in ("bpe", "gpt2"):
        tokenizers = pytest.importorskip("tokenizers", reason="needs the extra `data`")
    if kind == "gpt2":
        model = tokenizers.ByteLevelBPETokenizer()
        model.train_from_iterator([TEXT], vocab_size=290, special_tokens=["<|endoftext|>"])
        (tmp_path / "vocabulary").mkdir()
        model.save_model(str(tmp_path / "vocabulary"))
        name = str(tmp_path / "vocabulary")
    meta = prepare(tmp_path / "out", tmp_path / "text.txt", Wanted(name, 290, 0.1))
    run_config = RunConfig().replace(
        data=str(tmp_path / "text.txt"), tokenizer=name, vocab_size=290, block_size=8
    )
    in_memory = read_texts(run_config, tmp_path, print)
    again = read_texts(
        run_config.replace(data=str(tmp_path / "out"), tokenizer=None), tmp_path, print
    )
    for found, expected in ((again.train, in_memory.train), (again.val, in_memory.val)):
        np.testing.assert_array_equal(found, expected)
    assert again.tokenizer.to_dict() == in_memory.tokenizer.to_dict()
    assert again.bytes_per_token == in_memory.bytes_per_token
    assert meta["train"]["bytes"] + meta["val"]["bytes"] == len(TEXT.encode())
    assert (meta["documents"], meta["dtype"]) == (1, "uint16")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("meta.json", "train.bin", "val.bin")
    ]


def test_many_documents_are_divided_by_their_content_and_end_in_a_token(tmp_path):
    found = []
    for name, start in (("a", 0), ("b", 5000)):
        source = documents(tmp_path / name, 150, start)
        meta = prepare(tmp_path / f"out-{name}", source)
        found.append(opened(tmp_path / f"out-{name}"))
    train, val = texts_of(found[0], found[0].train), texts_of(found[0], found[0].val)
    assert 5 <= len(val) <= 30
    assert len(train) + len(val) == 150
    assert meta["val"]["documents"] == len(val)
    assert sorted(train) == sorted(texts_of(found[1], found[1].train))
    assert train != texts_of(found[1], found[1].train), "the orders are not the same"
    assert sorted(val) == sorted(texts_of(found[1], found[1].val))
    assert found[0].bytes[1] == sum(len(x.encode()) for x in val)
    assert found[0].tokenizer.start_id == found[0].tokenizer.end_id


def test_few_documents_are_cut_at_nine_tenths_of_their_characters(tmp_path):
    source = documents(tmp_path / "a", 7)
    prepare(tmp_path / "out", source)
    found = opened(tmp_path / "out")
    whole = "".join(path.read_text() for path in sorted(source.iterdir()))
    train, val = split(whole)
    for tokens, expected in ((found.train, train), (found.val, val)):
        assert found.tokenizer.decode(tokens).replace("<|endoftext|>", "") == expected
    ends = sum(int((x == found.tokenizer.end_id).sum()) for x in (found.train, found.val))
    assert ends == 7


def test_characters_separate_documents_by_a_newline(tmp_path):
    (tmp_path / "a").mkdir()
    for name, text in {"1": "abc", "2": "def\n", "3": "ghi"}.items():
        (tmp_path / "a" / name).write_text(text * 5)
    prepare(tmp_path / "out", tmp_path / "a", Wanted("char", 0, 0.1))
    found = opened(tmp_path / "out")
    text = found.tokenizer.decode(found.train) + found.tokenizer.decode(found.val)
    assert text == "abc" * 5 + "\n" + "def\n" * 5 + "ghi" * 5 + "\n"
    assert isinstance(found.tokenizer, CharTokenizer)


def test_bpe_learns_from_the_training_part_alone_and_from_so_much_of_it(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers", reason="needs the extra `data`")
    (tmp_path / "text.txt").write_text("tick tock " * 90 + "zzzz zzzz " * 10)
    meta = prepare(tmp_path / "out", tmp_path / "text.txt", Wanted("bpe", 300, 0.1))
    tokens = meta["tokenizer"]["tokens"]
    assert "Ġtick" in tokens
    assert "zz" not in tokens
    source = Documents(find([str(documents(tmp_path / "a", 150))]))
    found = dividing.survey(source, 0.1)
    monkeypatch.setattr(dividing, "LEARNED_BYTES", found.train_bytes // 3)
    some = list(dividing.learned_from(source, found, 0.1))
    assert sum(len(x.encode()) for x in some) <= found.train_bytes // 3
    assert 20 <= len(some) <= 70
    assert some == list(dividing.learned_from(source, found, 0.1))


class Stop(Exception):
    """Simulates a kill: nothing that the code does afterwards may matter."""


@pytest.mark.parametrize("how", ["interrupted", "killed", "full"])
def test_the_same_command_goes_on_to_the_same_files(how, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "AT_ONCE", 1)
    source = documents(tmp_path / "a", 150)
    prepare(tmp_path / "whole", source)
    out, write, batches = tmp_path / "parts", preparing._write, 0

    def write_part(some, files, progress):
        """Every third batch is partly written, and not counted."""
        nonlocal batches
        batches += 1
        if batches % 3:
            return write(some, files, progress)
        for file in files.values():
            file.write(b"half")
        if how == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "train.bin.part")
        raise KeyboardInterrupt if how == "interrupted" else Stop

    monkeypatch.setattr(preparing, "_write", write_part)
    ends = 0
    while True:
        try:
            prepare(out, source, clock=lambda: 1e9 * batches)
            break
        except (KeyboardInterrupt, Stop, OSError):
            ends += 1
            assert not [path for path in out.iterdir() if path.suffix == ".bin"]
            assert not (out / "meta.json").exists()
    assert ends >= 2
    for name in ("train.bin", "val.bin", "meta.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list(out.iterdir())) == 3


def test_a_kill_before_the_last_file_loses_nothing(tmp_path, monkeypatch):
    source = documents(tmp_path / "a", 120)
    prepare(tmp_path / "whole", source)

    def killed(path, value):
        if path.name == "meta.json":
            raise Stop
        json_of(path, value)

    json_of = preparing.write_json
    monkeypatch.setattr(preparing, "write_json", killed)
    with pytest.raises(Stop):
        prepare(tmp_path / "out", source)
    monkeypatch.setattr(preparing, "write_json", json_of)
    prepare(tmp_path / "out", source)
    for name in ("train.bin", "meta.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_progress_is_shown_in_each_stage(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra `data`")
    seen: dict[str, list[int]] = {}
    documents(tmp_path / "a", 9)
    source = Documents(find([str(tmp_path / "a")]))

    def show(what, progress):
        seen.setdefault(what, []).append(source.read)

    preparing.prepare(
        source, tmp_path / "out", Wanted("bpe", 300, 0.1), tmp_path, lambda _: None, show
    )
    assert list(seen) == ["reading", "learning", "encoding"]
    for what in ("reading", "learning"):
        assert len(set(seen[what])) >= 8, "after each document"
