import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptjax.errors import InputError
from gptjax.tokenizer import CharTokenizer

any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(any_text)
def test_round_trip_of_any_text(text):
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert list(tokenizer.characters) == sorted(set(text))
    assert [tokenizer.characters[i] for i in ids] == list(text)
    assert CharTokenizer.from_dict(tokenizer.to_dict()).characters == tokenizer.characters


def test_newline_is_id_zero_as_in_the_lecture():
    tokenizer = CharTokenizer.from_text("hii there\n")
    assert tokenizer.encode("\n").tolist() == [0]
    assert tokenizer.encode("hii").dtype == np.int32


@pytest.mark.parametrize(
    ("text", "start"), [("a\tb\n", 1), ("\t\n\r", 1), ("\0\1\n", 2), ("ab", 0), ("\tb", 0)]
)
def test_a_text_starts_with_a_newline_where_the_vocabulary_has_one(text, start):
    """In a text with tabs, id 0 is the tab: samples used to begin in the middle of a line."""
    assert CharTokenizer.from_text(text).start_id == start


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ab\u00e9", "'\u00e9' (U+00E9) at position 2"),
        ("\u6f22", "'\u6f22' (U+6F22) at position 0"),
        ("z", "'z' (U+007A) at position 0"),
        ("a\U0001f600", "'\U0001f600' (U+1F600) at position 1"),
        # A character that no terminal shows is given by its code.
        ("\ufeff", "'\\ufeff' (U+FEFF) at position 0"),
        ("\t", "'\\t' (U+0009) at position 0"),
        ("\ud800", "'\\ud800' (U+D800) at position 0"),
    ],
)
def test_unknown_characters_are_named_with_their_place(text, named):
    with pytest.raises(InputError) as caught:
        CharTokenizer.from_text("abc").encode(text)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"type": "bpe"},
        {"type": "char"},
        {"type": "char", "characters": ""},
        {"type": "char", "characters": 5},
        {"type": "char", "characters": "ba"},
        {"type": "char", "characters": "aa"},
    ],
)
def test_what_is_no_vocabulary_is_refused(value):
    with pytest.raises(InputError):
        CharTokenizer.from_dict(value)


def test_empty_text_encodes_to_nothing():
    tokenizer = CharTokenizer("ab")
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([]) == ""
