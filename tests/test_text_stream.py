"""Tokens to text: for any pieces, the text is the same, and the stop text is never shown."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gptjax.inference.decoding import ROOM, Drawn
from gptjax.inference.text_stream import LINE, Pace, SampleWriter, TextStream
from gptjax.tokenizer import CharTokenizer

LETTERS = CharTokenizer("abcd")


class Bytes:
    """A tokenizer of bytes, so that a character may take several tokens."""

    start_id = 0

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


def run(tokenizer, ids, *stops):
    """The certain text after each token, and the whole text."""
    text = TextStream(tokenizer, stops)
    parts = [text.feed([token]) for token in ids]
    return parts, "".join(parts) + text.finish(), text


@given(text=st.text("abcd", max_size=30), stop=st.text("abcd", min_size=1, max_size=4))
def test_the_text_ends_before_the_stop_text(text, stop):
    ids = LETTERS.encode(text)
    parts, whole, stream = run(LETTERS, ids, stop)
    assert whole == text.split(stop)[0]
    assert stream.done == (stop in text)
    at_once = TextStream(LETTERS, [stop])
    assert at_once.feed(ids) + at_once.finish() == whole
    assert stream.tokens == (text.index(stop) + len(stop) if stop in text else len(text))
    for n in range(len(parts)):
        assert text.startswith("".join(parts[: n + 1])), "what was shown must not be taken back"


@given(
    text=st.text("abcd", max_size=30),
    stops=st.lists(st.text("abcd", min_size=1, max_size=4), min_size=2, max_size=3),
)
def test_of_several_stop_texts_each_counts(text, stops):
    """The stop text that ends first; among those that end together, the one that begins first."""
    parts, whole, stream = run(LETTERS, LETTERS.encode(text), *stops)
    found = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert whole == (text[: min(found)[1]] if found else text)
    assert stream.done == bool(found)
    for n in range(len(parts)):
        assert text.startswith("".join(parts[: n + 1])), "what was shown must not be taken back"


def test_what_may_become_the_stop_text_is_held_back():
    parts, whole, _ = run(LETTERS, LETTERS.encode("aabac"), "abab")
    assert parts == ["", "a", "", "", "abac"]
    assert whole == "aabac"


@given(st.text(max_size=20))
def test_no_half_character_is_shown(text):
    parts, whole, _ = run(Bytes(), Bytes().encode(text))
    assert whole == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert all("\N{REPLACEMENT CHARACTER}" not in part for part in parts)


def test_bytes_that_are_no_text_come_out_all_the_same():
    _, whole, _ = run(Bytes(), [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, ord("a"), 0xE2])
    assert whole.count("\N{REPLACEMENT CHARACTER}") == 6
    assert "a" in whole


def drawn(*rows):
    ids = np.array([LETTERS.encode(row) for row in rows])
    return Drawn(ids, np.zeros(ids.shape), np.zeros((*ids.shape, 0)), np.zeros((*ids.shape, 0)))


def test_samples_are_written_in_order_the_first_as_it_is_made():
    out = io.StringIO()
    writer = SampleWriter(out, LETTERS, stops=["dd"])
    writer.begin([(0, 0, "P"), (0, 1, "P")])
    assert not writer.feed(drawn("ab", "cd"))
    assert out.getvalue() == "Pab"
    assert writer.feed(drawn("dd", "dd"))
    writer.end()
    assert out.getvalue() == f"Pab\n{LINE}\nPc\n{LINE}\n"


def test_a_sample_that_ends_first_leaves_the_others_their_own_tokens():
    """The second sample used to continue the first one, and the third the second."""
    out = io.StringIO()
    writer = SampleWriter(out, LETTERS, stops=["d"], keep_logprobs=True)
    writer.begin([(0, s, "") for s in range(3)])
    for columns in (("a", "b", "c"), ("d", "b", "c"), ("a", "a", "c"), ("a", "d", "c")):
        writer.feed(drawn(*columns))
    writer.end()
    assert out.getvalue() == f"a\n{LINE}\nbba\n{LINE}\ncccc\n{LINE}\n"
    texts = ["".join(x["token"] for x in writer.logprobs if x["sample"] == s) for s in range(3)]
    assert texts == ["ad", "bbad", "cccc"]


def test_the_pace_follows_the_speed():
    """From one token up to the tokens of 0.05 s, here 10 at 5 ms per token."""
    now = 0.0
    pace = Pace(watched=True, clock=lambda: now)
    counts = []
    for _ in range(8):
        counts.append(pace())
        now += 0.005 * counts[-1]
    assert counts == [1, 2, 4, 8, 10, 10, 10, 10]
    now += 100
    assert pace() == 1
    assert Pace(watched=False)() == ROOM
