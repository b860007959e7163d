"""The vocabulary of a Hugging Face folder, with the interface of `CharTokenizer`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.errors import InputError
from gptjax.interop.folder_weights import download
from gptjax.text.gpt2_folder import END_OF_TEXT, WHOLE_TOKENIZER, read_folder


class FolderTokenizer:
    """A byte-level BPE vocabulary.

    Attributes:
        start_id: the token that starts a text if there is no prompt.
    """

    def __init__(self, tokenizer: Any, start_id: int, known: int) -> None:
        self._tokenizer = tokenizer
        self.start_id = start_id
        self._known = known  # the number of ids that the weights have

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return self._tokenizer.get_vocab_size()

    def __contains__(self, character: object) -> bool:
        """True for all characters except the byte order mark, which belongs to files, not texts."""
        return character != "\ufeff"

    def encode(self, text: str) -> np.ndarray:
        """Encodes a text: (N,) int32. A byte-level vocabulary can encode every text.

        Raises:
            InputError: the text contains a token that the weights do not have.
        """
        found = self._tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(found.ids, np.int32)
        beyond = (ids >= self._known).nonzero()[0]
        if len(beyond):
            at = int(beyond[0])
            raise InputError(
                f"token {self._tokenizer.id_to_token(int(ids[at]))!r} (id {ids[at]}, at character "
                f"{found.offsets[at][0]}) cannot be used: the weights have {self._known} tokens"
            )
        return ids

    def encode_prompt(self, text: str) -> np.ndarray:
        """Equals `encode`: for a GPT-2, special tokens are special in every text."""
        return self.encode(text)

    def decode(self, ids: Any) -> str:
        """Decodes a sequence of ids."""
        return self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


def read_vocabulary(
    folder: Path, start_id: Any, known: int, tell: Callable[[str], None]
) -> FolderTokenizer:
    """Reads tokenizer.json, or vocab.json and merges.txt with the special tokens listed elsewhere.

    Args:
        start_id: bos_token_id of the folder's config.json.
        known: the number of tokens that the weights have.
        tell: receives a line if the vocabulary has more tokens than the weights.

    Raises:
        InputError: the folder has no vocabulary, or the vocabulary cannot be read.
    """
    way_out = f"GPT-2's own is fetched by {download(folder, WHOLE_TOKENIZER)}"
    tokenizer = read_folder(folder, f"reading {folder}", way_out)
    beyond = {i: token for token, i in tokenizer.get_vocab().items() if i >= known}
    if beyond:
        first, last = min(beyond), max(beyond)
        these = f"id {first}" if first == last else f"ids {first} to {last}"
        tell(
            f"{folder}: the vocabulary has more tokens than the weights, which have {known}: "
            f"{these} ({beyond[first]!r}{', ...' if len(beyond) > 1 else ''}) cannot occur"
        )
    for start in (start_id, tokenizer.token_to_id(END_OF_TEXT), 0):
        if isinstance(start, int) and 0 <= start < known:
            return FolderTokenizer(tokenizer, start, known)
    raise InputError(f"{folder}: the weights have no token at all")
