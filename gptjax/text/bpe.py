"""Byte-level BPE: learned from a text, or GPT-2's (Sennrich et al., 2016; Radford et al., 2019).

A text is divided into words, each with the space before it, by GPT-2's regular expression. A word
begins as bytes, and pairs of tokens are merged in the order in which they were learned. The package
`tokenizers` does both; decoding needs no package.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from gptjax.errors import InputError
from gptjax.text.byte_level import END_OF_TEXT, utf8, with_special
from gptjax.text.packages import optional

# Sizes of a vocabulary that can be learned: the 256 bytes and the token that ends a text are always
# there, and what is longer than the second would not fit a run's tokenizer.json.
LEAST, MOST = 257, 2**18
# A text is encoded in pieces of about this many characters, several at once.
PIECE, AT_ONCE, AHEAD = 2**16, 64, 16
# Between two words, and so between two pieces: a space after something else. No token of GPT-2's
# expression goes on there, so the ids do not depend on where pieces end.
_BETWEEN = re.compile(r"(?<=\S)[ \n\r\t]")

# What must be so for `BpeTokenizer` to give the ids of a folder's own tokenizer.
_GPT2: dict[str, Any] = {
    "model": "BPE",
    "pre_tokenizer": "ByteLevel",
    "add_prefix_space": False,
    "use_regex": True,
    "normalizer": None,
    "ignore_merges": False,
}


def byte_characters() -> list[str]:
    """The character that stands for each byte in a vocabulary, as GPT-2 chose them.

    A printable byte is its Latin-1 character; the others are characters from U+0100 on.
    """
    shown = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


_BYTE_OF = {character: byte for byte, character in enumerate(byte_characters())}


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """A text in parts of about `size` characters, each of which can be encoded alone."""
    start = 0
    while start < len(text):
        end = piece_end(text, start, size)
        yield text[start:end]
        start = end


def piece_end(text: str, start: int, size: int = PIECE) -> int:
    """Where the piece that begins at `start` ends. It looks at most `AHEAD` times `size` ahead."""
    # A "word" without an end is cut all the same, or a file of one line would be one piece.
    last = start + AHEAD * size
    found = _BETWEEN.search(text, start + size, last)
    return found.start() if found else min(last, len(text))


class BpeTokenizer:
    """A byte-level BPE vocabulary.

    Attributes:
        kind: `bpe` if it was learned from a text here, `gpt2` if it was read from a folder.
        end_id: the token after each document.
        start_id: the token that begins a text without a prompt: the newline, or `end_id`.
    """

    def __init__(
        self,
        kind: str,
        tokens: Sequence[str],
        merges: Sequence[str],
        special: Sequence[str] = (END_OF_TEXT,),
        start_id: int | None = None,
    ) -> None:
        """Checks that the parts are a vocabulary which can encode every text.

        Args:
            tokens: in the order of their ids, each of the characters that stand for its bytes.
            merges: pairs of tokens with a space between, in the order in which they are merged.
            special: tokens that no text is encoded to, but a prompt.
            start_id: the newline's, if it is None.
        """
        ids = {token: i for i, token in enumerate(tokens)}
        if len(ids) < len(tokens):
            raise InputError("the tokens of a BPE vocabulary must be distinct")
        if missing := [token for token in [*byte_characters(), *special] if token not in ids]:
            raise InputError(f"a byte-level BPE vocabulary must hold {missing[0]!r}")
        if END_OF_TEXT not in special:
            raise InputError(f"a vocabulary must have the special token {END_OF_TEXT!r}")
        plain = ids.keys() - set(special)
        if strange := [token for token in plain if not token or set(token) - _BYTE_OF.keys()]:
            raise InputError(f"token {min(strange)!r} does not consist of bytes")
        for merge in merges:
            left, _, right = merge.partition(" ")
            if not {left, right, left + right} <= plain:
                raise InputError(f"merge {merge!r} is not of three tokens of the vocabulary")
        self.kind = kind
        self.end_id = ids[END_OF_TEXT]
        self.start_id = ids[byte_characters()[ord("\n")]] if start_id is None else start_id
        if self.start_id not in range(len(tokens)):
            raise InputError(f"start_id {start_id} must be from 0 to {len(tokens) - 1}")
        self._tokens, self._merges, self._special = list(tokens), list(merges), list(special)
        self._ids = ids
        self._bytes = [
            token.encode() if token in special else bytes(_BYTE_OF[x] for x in token)
            for token in tokens
        ]

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self._tokens)

    def __contains__(self, character: object) -> bool:
        """True for all characters but the byte order mark, which belongs to files, not texts."""
        return character != "\ufeff"

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text: (N,) int32. Special tokens in it are plain text.

        Raises:
            InputError: as `utf8`, or the package `tokenizers` is not installed.
        """
        utf8(text)
        found, batch = [np.empty(0, np.int32)], []
        for piece in pieces(text):
            batch.append(piece)
            if len(batch) == AT_ONCE:
                found += self.encode_batch(batch)
                batch = []
        return np.concatenate(found + self.encode_batch(batch))

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of several texts without surrogates, computed on all cores."""
        if not texts:
            return []
        encoded = self._model.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, np.int32) for one in encoded]

    def encode_prompt(self, text: str) -> np.ndarray:
        """Ids of a prompt, in which special tokens such as `<|endoftext|>` are one id each."""
        return with_special(text, self._special, self._ids, self.encode)

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids; bytes that are not UTF-8 become U+FFFD."""
        content = b"".join(self._bytes[i] for i in np.asarray(ids, np.int64).tolist())
        return content.decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """How many bytes of text each id stands for: (vocab_size,); special tokens are none."""
        special = set(self._special)
        pairs = zip(self._tokens, self._bytes, strict=True)
        return np.array([0 if token in special else len(content) for token, content in pairs])

    def starting_with(self, start_id: int) -> Self:
        """The same tokenizer with another `start_id`."""
        return type(self)(self.kind, self._tokens, self._merges, self._special, start_id)

    def to_dict(self) -> dict[str, Any]:
        """What tokenizer.json holds."""
        return {
            "type": self.kind,
            "tokens": self._tokens,
            "merges": self._merges,
            "special": self._special,
            "start_id": self.start_id,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: it is no byte-level BPE vocabulary.
        """
        lists = [value.get(name) for name in ("tokens", "merges", "special")]
        for found in lists:
            if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
                raise InputError("tokens, merges and special must be lists of strings")
        if not isinstance(value.get("start_id"), int):
            raise InputError(f"start_id ({value.get('start_id')!r:.40}) must be a whole number")
        return cls(str(value.get("type")), *lists, start_id=value["start_id"])  # type: ignore[arg-type]

    @functools.cached_property
    def _model(self) -> Any:
        """What encodes: special tokens are not in it, so that no text is encoded to one."""
        tokenizers = optional("tokenizers", f"--tokenizer {self.kind}")
        special = set(self._special)
        merges = [tuple(merge.split(" ")) for merge in self._merges]
        vocabulary = {token: i for token, i in self._ids.items() if token not in special}
        model = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
        model.pre_tokenizer = _words(tokenizers)
        return model


def learn(texts: Iterable[str], vocab_size: int) -> BpeTokenizer:
    """Learns a vocabulary from texts. The same texts give the same vocabulary.

    Args:
        vocab_size: all ids, the 256 bytes and the one that ends a text included. A small text may
            give fewer: a pair that comes once is not merged.

    Raises:
        InputError: the package `tokenizers` is not installed.
    """
    tokenizers = optional("tokenizers", "--tokenizer bpe")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = _words(tokenizers)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=byte_characters(),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    stored = json.loads(model.to_str())["model"]
    tokens = sorted(stored["vocab"], key=stored["vocab"].__getitem__)
    return BpeTokenizer("bpe", [*tokens, END_OF_TEXT], _merges(stored))


def of_folder(model: Any) -> BpeTokenizer:
    """The vocabulary of a GPT-2 folder.

    Args:
        model: a `tokenizers.Tokenizer`, in which special tokens are added tokens.

    Raises:
        InputError: it divides or merges otherwise than GPT-2's.
    """
    whole = json.loads(model.to_str())
    stored = whole["model"]
    words = whole.get("pre_tokenizer") or {}
    found = {
        "model": stored.get("type"),
        "pre_tokenizer": words.get("type"),
        "add_prefix_space": bool(words.get("add_prefix_space", True)),
        "use_regex": bool(words.get("use_regex", True)),
        "normalizer": whole.get("normalizer"),
        "ignore_merges": bool(stored.get("ignore_merges", False)),
    }
    for name, value in _GPT2.items():
        if found[name] != value:
            raise InputError(f"{name} is {found[name]!r:.60}, and GPT-2's is {value!r}")
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    ids = stored["vocab"] | added
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise InputError("the ids of a vocabulary must be 0, 1, 2, ... without a gap")
    return BpeTokenizer("gpt2", tokens, _merges(stored), list({END_OF_TEXT: 0, **added}))


def _merges(stored: dict[str, Any]) -> list[str]:
    """The merges of a stored model: older versions of the package write a pair as one string."""
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["merges"]]


def _words(tokenizers: Any) -> Any:
    """What divides a text into words, by GPT-2's regular expression."""
    return tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
