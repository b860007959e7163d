"""Reads a run's text, splits it for training and validation, and tokenizes it."""

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.config import RunConfig
from gptjax.data import check_lengths, compact, split
from gptjax.errors import InputError
from gptjax.text.bpe import pieces
from gptjax.text.corpora import is_prepared_name, load_text, prepared_folder
from gptjax.text.dividing import (
    VAL_FRACTION,
    characters,
    check_divided,
    parts,
    separated,
    survey,
)
from gptjax.text.documents import Documents, find
from gptjax.text.prepared import is_prepared, read_prepared
from gptjax.text.preparing import Wanted, encoded, make_tokenizer
from gptjax.text.tokenizers import Tokenizer, choose
from gptjax.tokenizer import CharTokenizer

# Number of characters at the beginning that are kept, to find a prompt in.
BEGINNING = 2**16


class Texts(NamedTuple):
    """A run's text as ids, in two splits.

    Attributes:
        source: the `source` of `corpora.Text`.
        sha256: hash of the text's bytes.
        beginning: the first characters of the text.
        size: the amount of text, to print.
        bytes_per_token: of the training split, and of the validation split.
    """

    source: str
    sha256: str
    beginning: str
    size: str
    tokenizer: Tokenizer
    train: np.ndarray
    val: np.ndarray
    bytes_per_token: tuple[float, float]


class Of(NamedTuple):
    """The run that a text belongs to: its folder and its tokenizer.

    A new run that starts from trained weights has a tokenizer before it has a text (`is_new`).
    """

    path: Path
    tokenizer: Tokenizer
    is_new: bool = False


def read_texts(
    run_config: RunConfig,
    data_dir: Path,
    tell: Callable[[str], None],
    is_stored: bool = False,
    run: Of | None = None,
) -> Texts:
    """Reads the text that `run_config` names: one file, several, or a folder of prepared text.

    The name of a large corpus stands for its folder in `data_dir`.

    A file is split by characters with every tokenizer, so that bits per byte are comparable.

    Args:
        data_dir, tell, is_stored: as in `load_text`.
        run: a run that already has a tokenizer; None for a new run, whose tokenizer is chosen here.

    Raises:
        InputError: the text cannot be read, is too short, or is not the run's.
    """
    if is_prepared_name(run_config.data):
        folder = prepared_folder(run_config.data, data_dir)
        run_config = run_config.replace(data=str(folder))
    if is_prepared(Path(run_config.data)):
        texts = _prepared(run_config, data_dir, tell, run)
    elif is_glob(run_config.data):
        texts = _several(run_config, data_dir, tell, run)
    else:
        texts = _one(run_config, data_dir, tell, is_stored, run)
    check_lengths(texts.train, texts.val, run_config.model.block_size)
    return texts


def is_glob(data: str) -> bool:
    """Whether `--data` is a pattern for the names of files."""
    return glob.has_magic(data) and not os.path.lexists(data)


def check_same(run_config: RunConfig, sha256: str, run: Of | None) -> None:
    """Checks that a run continues with the text that it was trained on.

    Raises:
        InputError: the text is another one.
    """
    if run is not None and not run.is_new and run_config.data_sha256 != sha256:
        raise InputError(
            f"--data {run_config.data} is another text than the run's: its sha256 is {sha256}, "
            f"but {run.path} was trained on {run_config.data_sha256}"
        )


def check_known(there: str, run: Of | None, source: str, text: str = "") -> None:
    """Checks that the vocabulary of trained weights has the characters of a new run's text.

    Args:
        there: the characters of the text.
        source: the value of `--data`.
        text: the text, if it is one file; the message then names the line.

    Raises:
        InputError: the vocabulary is one of characters, and lacks one.
    """
    if run is None or not run.is_new or run.tokenizer.kind != "char":
        return
    missing = [x for x in there if x not in run.tokenizer]
    if not missing:
        return
    first, where = missing[0], f"--data {source}"
    if text:
        at = min(text.index(x) for x in missing)
        first, where = text[at], f"{where}, line {text.count(chr(10), 0, at) + 1}"
    raise InputError(
        f"{where}: character {first!r} (U+{ord(first):04X}) is not among the "
        f"{run.tokenizer.vocab_size} characters of the weights' vocabulary: leave it out of the "
        "text, or leave out --init-from"
    )


def _one(
    run_config: RunConfig,
    data_dir: Path,
    tell: Callable[[str], None],
    is_stored: bool,
    run: Of | None,
) -> Texts:
    """Reads a corpus by name, or one file, into memory."""
    text = load_text(run_config.data, data_dir, tell, is_stored)
    check_same(run_config, text.sha256, run)
    train, val = split(text.text)
    if run is not None:
        tokenizer = run.tokenizer
        if run.is_new:
            there = CharTokenizer.from_text(text.text).characters
            check_known(there, run, run_config.data, text.text)
    elif run_config.tokenizer in (None, "char"):
        tokenizer = CharTokenizer.from_text(text.text)
    else:
        vocab_size = run_config.model.vocab_size
        tokenizer = choose(run_config.tokenizer, lambda: pieces(train), vocab_size, data_dir, tell)
    train_tokens, val_tokens = (
        compact(tokenizer.encode(part), tokenizer.vocab_size) for part in (train, val)
    )
    parts = ((train, train_tokens), (val, val_tokens))
    bytes_per_token = tuple(len(part.encode()) / max(len(tokens), 1) for part, tokens in parts)
    return Texts(
        text.source,
        text.sha256,
        text.text[:BEGINNING],
        f"{len(text.text):,} characters",
        tokenizer,
        train_tokens,
        val_tokens,
        (bytes_per_token[0], bytes_per_token[1]),
    )


def _several(
    run_config: RunConfig, data_dir: Path, tell: Callable[[str], None], run: Of | None
) -> Texts:
    """Reads the files that match a pattern into memory, and divides them as `prepare` does."""
    pattern = os.path.abspath(run_config.data)
    source = Documents(find([pattern], tell))
    found = survey(source, VAL_FRACTION)
    check_divided(found, VAL_FRACTION)
    check_same(run_config, found.sha256, run)
    check_known(characters(found).characters, run, pattern)
    wanted = Wanted(run_config.tokenizer or "char", run_config.model.vocab_size, VAL_FRACTION)
    tokenizer = run.tokenizer if run else make_tokenizer(source, found, wanted, data_dir, tell)
    all_parts = (separated(x, tokenizer) for x in parts(source, found, VAL_FRACTION))
    dtype = compact(np.empty(0), tokenizer.vocab_size).dtype
    ids: dict[bool, list[np.ndarray]] = {False: [], True: []}
    sizes, beginning = {False: 0, True: 0}, ""
    for some in encoded(all_parts, tokenizer):
        for part, tokens in some:
            ids[part.is_val].append(tokens.astype(dtype))
            sizes[part.is_val] += len(part.text.encode())
            beginning = beginning or part.text
    train, val = (np.concatenate([np.empty(0, dtype), *ids[is_val]]) for is_val in (False, True))
    return Texts(
        pattern,
        found.sha256,
        beginning[:BEGINNING],
        f"{found.documents:,} documents of {found.bytes:,} bytes",
        tokenizer,
        train,
        val,
        (sizes[False] / max(len(train), 1), sizes[True] / max(len(val), 1)),
    )


def _prepared(
    run_config: RunConfig, data_dir: Path, tell: Callable[[str], None], run: Of | None
) -> Texts:
    """Opens a folder of prepared text as memory maps."""
    folder, of_run = Path(os.path.abspath(run_config.data)), run.tokenizer if run else None
    named = run_config.tokenizer if run is None else None
    found = read_prepared(folder, named, of_run, data_dir, tell)
    if run is not None and not _is_same(run.tokenizer, found.tokenizer):
        what = f"--data {run_config.data} was prepared with another vocabulary"
        if run.is_new:
            raise InputError(
                f"{what} ({found.tokenizer.kind}) than that of --init-from: give the original text"
            )
        raise InputError(
            f"{what} ({found.tokenizer.kind}) than that of {run.path} ({run.tokenizer.kind}): "
            "give the text that the run was trained on"
        )
    check_same(run_config, found.sha256, run)
    sizes = zip(found.bytes, (found.train, found.val), strict=True)
    each = [count / len(tokens) for count, tokens in sizes]
    return Texts(
        str(folder),
        found.sha256,
        found.tokenizer.decode(found.train[:1000]),
        f"{sum(found.bytes):,} bytes",
        found.tokenizer,
        found.train,
        found.val,
        (each[0], each[1]),
    )


def _is_same(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers give the same ids. Their start tokens may differ."""
    name_and_start = {"type": None, "start_id": None}
    return one.to_dict() | name_and_start == other.to_dict() | name_and_start


def with_text(run_config: RunConfig, texts: Texts) -> RunConfig:
    """Adds to the configuration what the text determines: its name, its sha256, the vocabulary."""
    return run_config.replace(
        data=texts.source,
        data_sha256=texts.sha256,
        tokenizer=texts.tokenizer.kind,
        vocab_size=texts.tokenizer.vocab_size,
    )
