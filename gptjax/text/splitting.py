"""A run's text: read, encoded, and split in two for training and validation."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.config import RunConfig
from gptjax.data import check_lengths, compact, split
from gptjax.errors import InputError
from gptjax.text.corpora import Text, load_text
from gptjax.tokenizer import CharTokenizer


class Texts(NamedTuple):
    """A run's text, its tokenizer, and its two splits as ids."""

    text: Text
    tokenizer: CharTokenizer
    train: np.ndarray
    val: np.ndarray


def read_texts(
    run_config: RunConfig,
    data_dir: Path,
    tell: Callable[[str], None],
    is_stored: bool = False,
) -> Texts:
    """Reads the text that `run_config` names, and splits it.

    Args:
        data_dir, tell, is_stored: as in `load_text`.

    Raises:
        InputError: the text cannot be read or is too short.
    """
    text = load_text(run_config.data, data_dir, tell, is_stored)
    tokenizer = CharTokenizer.from_text(text.text)
    tokens = compact(tokenizer.encode(text.text), tokenizer.vocab_size)
    train_tokens, val_tokens = split(tokens)
    check_lengths(train_tokens, val_tokens, run_config.model.block_size)
    return Texts(text, tokenizer, train_tokens, val_tokens)


def with_text(run_config: RunConfig, texts: Texts) -> RunConfig:
    """The configuration with what follows from the text: its name, its sha256, the vocabulary."""
    text = texts.text
    vocab_size = texts.tokenizer.vocab_size
    return run_config.replace(data=text.source, data_sha256=text.sha256, vocab_size=vocab_size)


def check_same_text(path: Path, run_config: RunConfig, texts: Texts) -> None:
    """A run goes on with the text that it was trained on.

    Args:
        path: the run.
        run_config: the run's.

    Raises:
        InputError: it is another text.
    """
    if run_config.data_sha256 != texts.text.sha256:
        raise InputError(
            f"--data {run_config.data} is another text than the run's: sha256 {texts.text.sha256}, "
            f"and {path} was trained on {run_config.data_sha256}"
        )
