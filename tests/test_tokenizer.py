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
    ("text", "named"),
    [
        ("ab\u00e9", "'\\xe9' at position 2"),
        ("z", "'z' at position 0"),
        ("a\U0001f600", "'\\U0001f600' at position 1"),
        ("\ud800", "'\\ud800' at position 0"),
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
