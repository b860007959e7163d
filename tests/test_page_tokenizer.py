"""The page encodes and decodes as Python does: characters, bytes and BPE."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gptjax.text.bpe import learn
from gptjax.text.byte_level import ByteTokenizer
from gptjax.tokenizer import CharTokenizer

from page_models import NODE
from strange import CHINESE, EMOJI, HINDI, PARTS

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node")

ENGLISH = (
    "I've 12 cats; they'll   eat 3,456!\n\n\tIt's (quite) fine.  \r\n  Don't\u00a0ask\x85why. "
)
TEXTS = ["", ENGLISH, CHINESE, HINDI, EMOJI, "".join(PARTS), " ".join(PARTS), "a<|endoftext|>b"]


def in_node(tokenizer, texts, ids):
    script = Path(__file__).with_name("tokenizer_in_node.mjs")
    asked = {"stored": tokenizer.to_dict(), "texts": texts, "ids": ids}
    done = subprocess.run(
        [str(NODE), str(script)], input=json.dumps(asked), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tokenizers():
    pytest.importorskip("tokenizers")
    text = (ENGLISH + CHINESE + HINDI + EMOJI) * 3
    return {"byte": ByteTokenizer(), "bpe": learn([text], 400)}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_the_page_tokenizes_strange_texts_as_python_does(kind):
    tokenizer = tokenizers()[kind]
    random = np.random.default_rng(0)
    any_ids = random.integers(0, tokenizer.vocab_size, (20, 30)).tolist()  # mostly invalid UTF-8
    expected = [tokenizer.encode_prompt(text).tolist() for text in TEXTS]
    found = in_node(tokenizer, TEXTS, [*expected, *any_ids])
    assert [x["ids"] for x in found["encoded"]] == expected
    assert not any(x["unknown"] for x in found["encoded"])
    assert found["decoded"] == [tokenizer.decode(ids) for ids in [*expected, *any_ids]]
    assert found["streamed"][: len(TEXTS)] == TEXTS
    assert found["startId"] == tokenizer.start_id


def test_half_a_surrogate_pair_is_unknown_to_every_tokenizer():
    for tokenizer in (ByteTokenizer(), CharTokenizer("ab")):
        [found] = in_node(tokenizer, ["a\ud800b"], [])["encoded"]
        assert found["unknown"] == ["\ud800"]


def test_characters_beyond_the_basic_plane_are_one_id():
    tokenizer = CharTokenizer("\nab\U0001f600")
    found = in_node(tokenizer, ["b\U0001f600\n", "ü"], [[3, 0]])
    assert found["encoded"][0] == {"ids": [2, 3, 0], "unknown": []}
    assert found["encoded"][1] == {"ids": [], "unknown": ["ü"]}
    assert found["decoded"] == ["\U0001f600\n"]


def test_a_piece_that_is_part_of_a_character_is_shown_as_its_bytes():
    found = in_node(ByteTokenizer(), [], [[0xE2, ord("a")]])
    assert found["pieces"] == [["\u2039e2\u203a", "a"]]
