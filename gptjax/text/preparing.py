"""Prepares a corpus: encodes documents into train.bin and val.bin, in constant memory.

An unfinished corpus is `train.bin.part`, `val.bin.part` and `preparing.json`; the same command
continues from these files. meta.json is written last: it marks a finished corpus.
"""

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
from gptjax.version import __version__

UNFINISHED = ".part"
# All files of a corpus. meta.json comes last.
FILES = (TRAIN, VAL, TRAIN + UNFINISHED, VAL + UNFINISHED, STATE, META)
# Number of pieces, of 2**16 characters each, that are encoded while the next ones are read.
AT_ONCE = 32
# Seconds between saves of the state. A kill loses at most this much work.
SAVE_EVERY = 10.0


class Wanted(NamedTuple):
    """What to prepare: the tokenizer's name and size, and the share for validation."""

    tokenizer: str
    vocab_size: int
    val_fraction: float


@dataclass
class Split:
    """The size of a split so far."""

    tokens: int = 0
    bytes: int = 0
    documents: int = 0


@dataclass
class Progress:
    """The progress of preparing, stored in preparing.json.

    Attributes:
        pieces: number of pieces that have been encoded.
    """

    pieces: int = 0
    train: Split = field(default_factory=Split)
    val: Split = field(default_factory=Split)

    def of(self, is_val: bool) -> Split:
        """Returns one of the two splits."""
        return self.val if is_val else self.train


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
        InputError: a file is not text, or `out` contains something else.
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
        tokenizer, progress = _continued(out / STATE, stored, this)
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
    with _opened(out, progress, dtype_of(tokenizer.vocab_size).itemsize) as files:
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
                _settle(files)
                save()
                saved = clock()
    finally:
        with contextlib.suppress(OSError):  # the disk is full: the previous state stays valid
            _settle(files)
            save()


def _continued(
    path: Path, stored: dict[str, Any], this: dict[str, Any]
) -> tuple[Tokenizer, Progress]:
    """Reads the tokenizer and the progress of an interrupted preparation.

    Args:
        this: the source and the settings, which must be those of the interrupted one.

    Raises:
        InputError: they are not, or the file is damaged.
    """
    if stored.get("of") != this:
        raise InputError(
            f"{path.parent} contains an unfinished corpus, of other texts or with other settings: "
            "--overwrite removes it"
        )
    try:
        splits = {name: Split(**stored[name]) for name in ("train", "val")}
        progress = Progress(stored["pieces"], **splits)
        counts = [progress.pieces, *(x for split in splits.values() for x in vars(split).values())]
        if not all(type(x) is int and x >= 0 for x in counts):
            raise TypeError("a count is not a number")
        return tokenizers.from_dict(stored["tokenizer"]), progress
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path} is damaged: --overwrite starts again") from error


def check_out(out: Path, overwrite: bool = False) -> None:
    """Checks that a corpus can be prepared or continued in this folder.

    Args:
        overwrite: a corpus that was prepared there, whole or not, is to be replaced.

    Raises:
        InputError: the path is a file, or contains a finished corpus, or files from elsewhere.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give the path of a folder")
    if (out / META).exists() and not overwrite:
        raise InputError(f"--out {out} contains a prepared text: --overwrite replaces it")
    if not _is_ours(out):
        for name in (TRAIN, VAL, META):
            if (out / name).exists():
                raise InputError(
                    f"--out {out} contains a {name} from elsewhere: move that away, or give "
                    "another --out"
                )


def _is_ours(out: Path) -> bool:
    """Whether a folder contains a corpus that this command prepared, finished or not."""
    if (out / STATE).exists():
        return True
    try:
        return "format" in read_json(out / META, links=True)
    except InputError:
        return False


def remove_prepared(out: Path) -> None:
    """Removes a corpus, finished or not, and nothing else. Removes meta.json last."""
    if _is_ours(out):
        for name in FILES:
            (out / name).unlink(missing_ok=True)


def _count(progress: Progress) -> str:
    return f"{progress.train.tokens + progress.val.tokens:,} tokens"


@contextlib.contextmanager
def _opened(out: Path, progress: Progress, itemsize: int) -> Iterator[dict[bool, IO[bytes]]]:
    """Opens the two unfinished files for appending, cut to the length in `progress`."""
    with contextlib.ExitStack() as stack:
        files = {}
        for is_val, name in ((False, TRAIN), (True, VAL)):
            path = out / (name + UNFINISHED)
            if not path.exists() and (out / name).exists():  # killed before meta.json was written
                os.replace(out / name, path)
            file = stack.enter_context(path.open("ab"))
            size = progress.of(is_val).tokens * itemsize
            if path.stat().st_size < size:
                raise InputError(f"{path} is shorter than {STATE} says: --overwrite starts again")
            file.truncate(size)
            files[is_val] = file
        yield files


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


def _settle(files: dict[bool, IO[bytes]]) -> None:
    """Flushes the files to disk."""
    for file in files.values():
        with naming(Path(file.name)):
            file.flush()
            os.fsync(file.fileno())


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
