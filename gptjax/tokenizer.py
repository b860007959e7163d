"""Text to ids and back. The lecture's tokenizer: one id per character, in sorted order."""

from typing import Any, Self

import numpy as np

from gptjax.errors import InputError

UNICODE_SIZE = 0x110000

# Characters looked up at once: what is needed on the way is 30 times as large.
CHUNK = 2**20


class CharTokenizer:
    """A character vocabulary.

    Attributes:
        characters: all characters, sorted by code point; a character's id is its index. For tiny
            Shakespeare, id 0 is the newline.
        start_id: the token that begins a text without a prompt: the newline, where there is one.
        kind: the tokenizer's name, as in `--tokenizer`.
        end_id: always None, because no character ends a text.
    """

    kind = "char"
    end_id = None

    def __init__(self, characters: str) -> None:
        if not isinstance(characters, str) or not characters:
            raise InputError("a character vocabulary must be a string of at least one character")
        codes = _codes(characters)
        if (np.diff(codes.astype(np.int64)) <= 0).any():
            raise InputError("the characters of a vocabulary must be distinct and sorted")
        self.characters = characters
        self._codes = codes
        self.start_id = max(0, characters.find("\n"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The vocabulary of a text: every distinct character, newlines as they are.

        Raises:
            InputError: the text is empty, or holds half of a surrogate pair.
        """
        seen = np.zeros(UNICODE_SIZE, bool)
        for start in range(0, len(text), CHUNK):
            seen[_codes(text[start : start + CHUNK])] = True
        codes = seen.nonzero()[0].astype("<u4")
        if half := [code for code in codes if 0xD800 <= code < 0xE000]:
            raise InputError(f"U+{half[0]:04X} is half of a surrogate pair, not a character")
        return cls(codes.tobytes().decode("utf-32-le"))

    def __contains__(self, character: object) -> bool:
        """Whether a character has an id."""
        return isinstance(character, str) and character in self.characters

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text: (len(text),) int32.

        Raises:
            InputError: a character is not in the vocabulary; the message names the first one
                and its position.
        """
        result = np.empty(len(text), np.int32)
        for start in range(0, len(text), CHUNK):
            codes = _codes(text[start : start + CHUNK])
            ids = np.searchsorted(self._codes, codes).clip(max=self.vocab_size - 1)
            unknown = (self._codes[ids] != codes).nonzero()[0]
            if len(unknown):
                at = start + int(unknown[0])
                raise InputError(
                    f"character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} is not "
                    f"among the {self.vocab_size} characters of this model's text"
                )
            result[start : start + CHUNK] = ids
        return result

    def encode_prompt(self, text: str) -> np.ndarray:
        """The same: no character is special in a prompt."""
        return self.encode(text)

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids."""
        return self._codes[np.asarray(ids, np.int64)].tobytes().decode("utf-32-le")

    def byte_lengths(self) -> np.ndarray:
        """How many bytes of UTF-8 each id stands for: (vocab_size,)."""
        return np.array([len(character.encode()) for character in self.characters])

    def to_dict(self) -> dict[str, Any]:
        """What tokenizer.json holds."""
        return {"type": "char", "characters": self.characters}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: the value is not a character vocabulary.
        """
        if value.get("type") != "char":
            raise InputError(f"tokenizer of type {value.get('type')!r}: only 'char' is known")
        return cls(value.get("characters", ""))


def _codes(text: str) -> np.ndarray:
    """Code points of a text, as uint32. Lone surrogates pass, so that an error can name them."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
