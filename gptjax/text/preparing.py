"""Prepares a corpus: encodes documents into train.bin and val.bin, in constant memory.

After an interruption, the same command continues from the files of unfinished.py. meta.json is
written last: it marks a finished corpus.
"""

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from gptjax.errors import InputError
from gptjax.files import flush, naming, read_json, write_json
from gptjax.text import tokenizers
from gptjax.text.bpe import BpeTokenizer
from gptjax.text.dividing import (
    Part,
    Survey,
    characters,
    check_divided,
    learned_from,
    parts,
    separated,
    survey,
)
from gptjax.text.documents import Documents
from gptjax.text.prepared import FORMAT, META, STATE, TRAIN, VAL, dtype_of, file_sha256
from gptjax.text.tokenizers import Tokenizer
from gptjax.text.unfinished import (
    UNFINISHED,
    Progress,
    check_out,
    continued,
    opened,
    remove_prepared,
    settle,
)
from gptjax.version import __version__

# Number of pieces, of 2**16 characters each, that are encoded while the next ones are read.
AT_ONCE = 32
# Seconds between saves of the state. A kill loses at most this much work.
SAVE_EVERY = 10.0


class Wanted(NamedTuple):
    """What to prepare: the tokenizer's name and size, and the share for validation."""

    tokenizer: str
    vocab_size: int
    val_fraction: float


def make_tokenizer(
    source: Documents,
    found: Survey,
    wanted: Wanted,
    data_dir: Path,
    tell: Callable[[str], None],
    show: Callable[[], None] = lambda: None,
) -> Tokenizer:
    """Makes the tokenizer of a corpus. BPE learns only from its training split.

    Args:
        show: called after each piece that BPE learns from.
    """
    if wanted.tokenizer == "char":
        return characters(found)

    def texts() -> Iterator[str]:
        for text in learned_from(source, found, wanted.val_fraction):
            show()
            yield text

    chosen = tokenizers.choose(wanted.tokenizer, texts, wanted.vocab_size, data_dir, tell)
    # With several documents, a text without a prompt starts like a document, after `end_id`.
    return chosen.starting_with(chosen.end_id) if found.is_several else chosen


def encoded(
    all_parts: Iterable[Part], tokenizer: Tokenizer
) -> Iterator[list[tuple[Part, np.ndarray]]]:
    """Yields batches of parts with their ids, encoded while the next batch is read."""
    with ThreadPoolExecutor(1) as other:
        waiting = None
        for some in batched(all_parts):
            following = other.submit(_encode, some, tokenizer)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def batched(all_parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yields batches of parts to encode together, limited by their number and length."""
    some, size = [], 0
    for part in all_parts:
        some.append(part)
        size += 2**12 + len(part.text)  # many short parts take time, too
        if size >= AT_ONCE * 2**16:
            yield some
            some, size = [], 0
    if some:
        yield some


def _encode(some: list[Part], tokenizer: Tokenizer) -> list[tuple[Part, np.ndarray]]:
    texts = [part.text for part in some]
    if isinstance(tokenizer, BpeTokenizer):
        ids = tokenizer.encode_batch(texts)
    else:
        ids = [tokenizer.encode(text) for text in texts]
    end = [] if tokenizer.end_id is None else [tokenizer.end_id]
    dtype = dtype_of(tokenizer.vocab_size)
    return [
        (part, np.append(one, end if part.ends else []).astype(dtype))
        for part, one in zip(some, ids, strict=True)
    ]


def prepare(
    source: Documents,
    out: Path,
    wanted: Wanted,
    data_dir: Path,
    tell: Callable[[str], None],
    show: Callable[[str, Progress], None] = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
    about: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepares a corpus in the folder `out`, or continues one that was interrupted.

    Args:
        data_dir: the folder in which GPT-2's vocabulary is, or is downloaded to.
        tell: receives lines to print.
        show: called after each piece or batch, with the current activity and the progress.
        about: what else meta.json contains.
        overwrite: replace the corpus in `out`, once the whole text has been read.

    Returns:
        The contents of meta.json.

    Raises:
        InputError: a file is not text, or changes meanwhile, or `out` contains something else.
        OSError: a file cannot be written, for example because the disk is full. The same call
            continues from what was written.
    """
    check_out(out, overwrite)
    progress, stored = Progress(), None
    found = survey(source, wanted.val_fraction, lambda: show("reading", progress))
    check_divided(found, wanted.val_fraction)
    out.mkdir(parents=True, exist_ok=True)
    this = {"source": found.sha256, "version": __version__, **wanted._asdict()}
    this |= {} if source.first_val is None else {"split": "its own"}
    if (out / STATE).exists() and not overwrite:
        stored = read_json(out / STATE)
        tokenizer, progress = continued(out / STATE, stored, this)
        tell(f"continuing after the interruption, at {_count(progress)}")
    else:
        learning = partial(show, "learning", progress)
        learning()
        tokenizer = make_tokenizer(source, found, wanted, data_dir, tell, learning)
        if overwrite:  # only now, because a text that cannot be read must not cost the other one
            remove_prepared(out)

    def save() -> None:
        state = {"of": this, "tokenizer": tokenizer.to_dict()}
        write_json(out / STATE, state | dataclasses.asdict(progress))

    all_parts = (separated(x, tokenizer) for x in parts(source, found, wanted.val_fraction))
    todo = itertools.islice(all_parts, progress.pieces, None)
    with opened(out, progress, dtype_of(tokenizer.vocab_size).itemsize) as files:
        if stored is None:
            save()
        show("encoding", progress)
        _write_all(encoded(todo, tokenizer), files, progress, save, show, clock)
    share = {"val_fraction": wanted.val_fraction} if source.first_val is None else {}
    return _finish(out, tokenizer, found, share | (about or {}), progress)


def _write_all(
    batches: Iterable[list[tuple[Part, np.ndarray]]],
    files: dict[bool, IO[bytes]],
    progress: Progress,
    save: Callable[[], None],
    show: Callable[[str, Progress], None],
    clock: Callable[[], float],
) -> None:
    """Writes the ids of each batch, and saves the state now and then and at the end."""
    saved = clock()
    try:
        for some in batches:
            _write(some, files, progress)
            show("encoding", progress)
            if clock() - saved > SAVE_EVERY:
                settle(files)
                save()
                saved = clock()
    finally:
        with contextlib.suppress(OSError):  # the disk is full: the previous state stays valid
            settle(files)
            save()


def _count(progress: Progress) -> str:
    return f"{progress.train.tokens + progress.val.tokens:,} tokens"


def _write(
    some: list[tuple[Part, np.ndarray]], files: dict[bool, IO[bytes]], progress: Progress
) -> None:
    """Appends ids to their files, and counts them after writing."""
    for is_val, file in files.items():
        mine = [(part, ids) for part, ids in some if part.is_val == is_val]
        with naming(Path(file.name)):
            file.writelines(ids.data for _, ids in mine)
            file.flush()
        split = progress.of(is_val)
        for part, ids in mine:
            split.tokens += len(ids)
            split.bytes += len(part.text.encode())
            split.documents += part.ends
    progress.pieces += len(some)


def _finish(
    out: Path, tokenizer: Tokenizer, found: Survey, about: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Renames the files to their final names, and writes meta.json.

    Args:
        about: what else meta.json contains.
    """
    splits = {}
    for name, split in ((TRAIN, progress.train), (VAL, progress.val)):
        path = out / (name + UNFINISHED)
        if not split.tokens:
            raise InputError(f"the text is too short: {name} would contain no token")
        splits[name.removesuffix(".bin")] = dataclasses.asdict(split) | {
            "sha256": file_sha256(path)
        }
    meta = {
        "format": FORMAT,
        "version": __version__,
        "dtype": dtype_of(tokenizer.vocab_size).name,
        "documents": found.documents,
        "source_sha256": found.sha256,
        **about,
        **splits,
        "tokenizer": tokenizer.to_dict(),
    }
    for name in (TRAIN, VAL):
        os.replace(out / (name + UNFINISHED), out / name)
    flush(out)
    write_json(out / META, meta)
    (out / STATE).unlink()
    return meta
