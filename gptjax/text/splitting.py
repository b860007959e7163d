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
    """A run's text, its configuration with what follows from the text, and its two splits."""

    config: RunConfig
    text: Text
    tokenizer: CharTokenizer
    train: np.ndarray
    val: np.ndarray


def read_texts(
    config: RunConfig,
    data_dir: Path,
    tell: Callable[[str], None],
    run: Path | None = None,
    given: bool = True,
) -> Texts:
    """Reads the text that `config` names, and splits it.

    Args:
        data_dir, tell: as in `load_text`.
        run: the run that goes on with it.
        given: the user named the text now; else its path is out of the run.

    Raises:
        InputError: the text cannot be read, is too short, or is another than the run's.
    """
    text = load_text(config.data, data_dir, tell, stored=not given)
    if run is not None and config.data_sha256 != text.sha256:
        raise InputError(
            f"--data {config.data} is another text than the run's: sha256 {text.sha256}, and "
            f"{run} was trained on {config.data_sha256}"
        )
    tokenizer = CharTokenizer.from_text(text.text)
    config = config.replace(
        data=text.source, data_sha256=text.sha256, vocab_size=tokenizer.vocab_size
    )
    tokens = compact(tokenizer.encode(text.text), tokenizer.vocab_size)
    train_tokens, val_tokens = split(tokens)
    check_lengths(train_tokens, val_tokens, config.model.block_size)
    return Texts(config, text, tokenizer, train_tokens, val_tokens)
