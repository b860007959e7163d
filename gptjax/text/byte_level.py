"""The tokenizer whose ids are bytes, and functions that all byte-level tokenizers share."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from gptjax.errors import InputError

END_OF_TEXT = "<|endoftext|>"


def utf8(text: str) -> bytes:
    """Encodes a text as UTF-8.

    Raises:
        InputError: the text contains half of a surrogate pair, which is not a character; the
            message says where.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise InputError(
            f"character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} is half of a "
            "surrogate pair, not a character"
        ) from error


def with_special(
    text: str, special: Sequence[str], id_of: dict[str, int], encode: Callable[[str], np.ndarray]
) -> np.ndarray:
    """Encodes a prompt, in which each special token is one id: (N,) int32.

    Args:
        encode: encodes the plain text between special tokens.
    """
    longest_first = sorted(special, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    found = [encode(part) if i % 2 == 0 else [id_of[part]] for i, part in enumerate(parts)]
    return np.concatenate(found).astype(np.int32)


class ByteTokenizer:
    """The 256 bytes of UTF-8, and an end-of-text id.

    Attributes:
        kind: its name for `--tokenizer`.
        end_id: the token after each document.
        start_id: the token that starts a text if there is no prompt: the newline, or `end_id`.
    """

    kind = "byte"
    vocab_size = 257
    end_id = 256

    def __init__(self, start_id: int = ord("\n")) -> None:
        if start_id not in range(self.vocab_size):
            raise InputError(f"start_id {start_id} must be from 0 to {self.vocab_size - 1}")
        self.start_id = start_id

    def __contains__(self, character: object) -> bool:
        """True for all characters except the byte order mark, which belongs to files, not texts."""
        return character != "\ufeff"

    def encode(self, text: str) -> np.ndarray:
        """Encodes a text as its bytes: (N,) int32.

        Raises:
            InputError: as in `utf8`.
        """
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def encode_prompt(self, text: str) -> np.ndarray:
        """Like `encode`, but `<|endoftext|>` becomes `end_id`."""
        return with_special(text, [END_OF_TEXT], {END_OF_TEXT: self.end_id}, self.encode)

    def decode(self, ids: Any) -> str:
        """Decodes a sequence of ids. Bytes that are not UTF-8 become U+FFFD."""
        ids = np.asarray(ids, np.int64)
        ends = (ids == self.end_id).nonzero()[0]
        parts = np.split(ids, ends)
        pieces = [parts[0], *(part[1:] for part in parts[1:])]
        content = END_OF_TEXT.encode().join(part.astype(np.uint8).tobytes() for part in pieces)
        return content.decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """The number of bytes of each id: (vocab_size,). `end_id` has 0."""
        return np.array([1] * 256 + [0])

    def starting_with(self, start_id: int) -> Self:
        """Returns the same tokenizer with another `start_id`."""
        return type(self)(start_id)

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of tokenizer.json."""
        return {"type": self.kind, "start_id": self.start_id}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: `start_id` is not an id.
        """
        return cls(value.get("start_id", -1))
