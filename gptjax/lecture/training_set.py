"""The training set: from characters to the many examples inside one block."""

from typing import NamedTuple

import numpy as np

from gptjax.data import compact, split
from gptjax.tokenizer import CharTokenizer


class TrainingSet(NamedTuple):
    """A text as the lecture prepares it. Both splits are ids, (N,), in the smallest dtype."""

    tokenizer: CharTokenizer
    train: np.ndarray
    val: np.ndarray


def prepare(text: str) -> TrainingSet:
    """Encodes every character, then splits: 90 % for training, the rest for validation."""
    tokenizer = CharTokenizer.from_text(text)
    tokens = compact(tokenizer.encode(text), tokenizer.vocab_size)
    return TrainingSet(tokenizer, *split(tokens))


def examples(chunk: np.ndarray) -> list[tuple[list[int], int]]:
    """The T examples in a chunk of T + 1 tokens: each context, of 1 to T tokens, and its target.

    A model learns from all of them at once. That is efficient, and it trains the model for contexts
    of every length up to block_size, as they occur when it generates text.
    """
    ids = [int(i) for i in chunk]
    return [(ids[: t + 1], ids[t + 1]) for t in range(len(ids) - 1)]
