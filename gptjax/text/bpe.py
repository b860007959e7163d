"""Byte-level BPE: learned from a text, or GPT-2's (Sennrich et al., 2016; Radford et al., 2019).

GPT-2's regular expression divides a text into words, each with the space before it. A word starts
as bytes; pairs of tokens are then merged in the order in which they were learned. The package
`tokenizers` learns and encodes; decoding needs no package.
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

# Sizes of a vocabulary that can be learned. It always has the 256 bytes and the end-of-text token.
# One larger than MOST would not fit into a run's tokenizer.json.
LEAST, MOST = 257, 2**18
# A text is encoded in pieces of about this many characters, several at once.
PIECE, AT_ONCE, AHEAD = 2**16, 64, 16
# Where pieces may end: between words, before a space that follows something else. No token of
# GPT-2's expression crosses such a place, so the ids do not depend on where pieces end.
_BETWEEN = re.compile(r"(?<=\S)[ \n\r\t]")

# A folder's tokenizer must have these settings; `BpeTokenizer` then gives the same ids.
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
    """Divides a text into parts of about `size` characters that can be encoded separately."""
    start = 0
    while start < len(text):
        end = piece_end(text, start, size)
        yield text[start:end]
        start = end


def piece_end(text: str, start: int, size: int = PIECE) -> int:
    """Finds the end of the piece that starts at `start`, at most `AHEAD` times `size` ahead."""
    # Cut even within a very long "word"; otherwise a file with one line would be one piece.
    last = start + AHEAD * size
    found = _BETWEEN.search(text, start + size, last)
    return found.start() if found else min(last, len(text))


class BpeTokenizer:
    """A byte-level BPE vocabulary.

    Attributes:
        kind: `bpe` if it was learned from a text here, `gpt2` if it was read from a folder.
        end_id: the token after each document.
        start_id: the token that starts a text if there is no prompt: the newline, or `end_id`.
    """

    def __init__(
        self,
        kind: str,
        tokens: Sequence[str],
        merges: Sequence[str],
        special: Sequence[str] = (END_OF_TEXT,),
        start_id: int | None = None,
    ) -> None:
        """Checks that the vocabulary can encode every text.

        Args:
            tokens: in the order of their ids; each is written in the characters for its bytes.
            merges: pairs of tokens, separated by a space, in the order in which they are merged.
            special: tokens that occur only in prompts: `encode` never returns them.
            start_id: None means the newline's id.
        """
        ids = {token: i for i, token in enumerate(tokens)}
        if len(ids) < len(tokens):
            raise InputError("the tokens of a BPE vocabulary must be distinct")
        if missing := [token for token in [*byte_characters(), *special] if token not in ids]:
            raise InputError(f"a byte-level BPE vocabulary must contain {missing[0]!r}")
        if END_OF_TEXT not in special:
            raise InputError(f"a vocabulary must have the special token {END_OF_TEXT!r}")
        plain = ids.keys() - set(special)
        if strange := [token for token in plain if not token or set(token) - _BYTE_OF.keys()]:
            raise InputError(f"token {min(strange)!r} must be characters for bytes")
        for merge in merges:
            left, _, right = merge.partition(" ")
            if not {left, right, left + right} <= plain:
                raise InputError(f"merge {merge!r}: its parts and their union must be tokens")
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
        """The number of ids."""
        return len(self._tokens)

    def __contains__(self, character: object) -> bool:
        """True for all characters except the byte order mark, which belongs to files, not texts."""
        return character != "\ufeff"

    def encode(self, text: str) -> np.ndarray:
        """Encodes a text: (N,) int32. Treats special tokens in it as plain text.

        Raises:
            InputError: as in `utf8`, or the package `tokenizers` is not installed.
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
        """Encodes several texts on all cores. They must not contain surrogates."""
        if not texts:
            return []
        encoded = self._model.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, np.int32) for one in encoded]

    def encode_prompt(self, text: str) -> np.ndarray:
        """Encodes a prompt, in which each special token, such as `<|endoftext|>`, is one id."""
        return with_special(text, self._special, self._ids, self.encode)

    def decode(self, ids: Any) -> str:
        """Decodes a sequence of ids. Bytes that are not UTF-8 become U+FFFD."""
        content = b"".join(self._bytes[i] for i in np.asarray(ids, np.int64).tolist())
        return content.decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """The number of bytes of each id: (vocab_size,). Special tokens have 0."""
        special = set(self._special)
        pairs = zip(self._tokens, self._bytes, strict=True)
        return np.array([0 if token in special else len(content) for token, content in pairs])

    def starting_with(self, start_id: int) -> Self:
        """Returns the same tokenizer with another `start_id`."""
        return type(self)(self.kind, self._tokens, self._merges, self._special, start_id)

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of tokenizer.json."""
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
            InputError: `value` is not a byte-level BPE vocabulary.
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
        """The encoder. It does not know the special tokens, so `encode` never returns them."""
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
        vocab_size: number of ids, including the 256 bytes and the end-of-text token. A small text
            may give fewer, because pairs that occur only once are not merged.

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
    """Converts the vocabulary of a GPT-2 folder.

    Args:
        model: a `tokenizers.Tokenizer`, in which special tokens are added tokens.

    Raises:
        InputError: it divides or merges text differently from GPT-2's.
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
            raise InputError(f"{name} is {found[name]!r:.60}, but GPT-2's is {value!r}")
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    ids = stored["vocab"] | added
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise InputError("the ids of a vocabulary must be 0, 1, 2, ... without a gap")
    return BpeTokenizer("gpt2", tokens, _merges(stored), list({END_OF_TEXT: 0, **added}))


def _merges(stored: dict[str, Any]) -> list[str]:
    """Reads the merges of a stored model. Older versions of the package store pairs as strings."""
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["merges"]]


def _words(tokenizers: Any) -> Any:
    """The pre-tokenizer, which divides a text into words by GPT-2's regular expression."""
    return tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
