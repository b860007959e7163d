"""Prepared text: train.bin and val.bin as nanoGPT writes them, read from a memory map.

meta.json in the same folder records the tokenizer, the number of tokens, bytes and documents in
each file, and their sha256. nanoGPT's own folders have no meta.json: the user writes one, or names
the tokenizer with a flag.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptjax.errors import InputError
from gptjax.files import read_json
from gptjax.text import tokenizers
from gptjax.text.shell import joined, python
from gptjax.text.tokenizers import Tokenizer

TRAIN, VAL, META, PICKLE = "train.bin", "val.bin", "meta.json", "meta.pkl"
# The state of a text that is being prepared, or whose preparation was interrupted.
STATE = "preparing.json"
FORMAT = 1
# Larger files are not read completely before training. Instead, their size is checked, and each
# batch is checked when it is read.
VERIFIED = 2**32
CHUNK = 2**22
# A program for the user to run: it converts nanoGPT's meta.pkl to meta.json.
CONVERT = (
    "import json,pickle,sys; m=pickle.load(open(sys.argv[1],'rb')); "
    "t={'type':'char','characters':''.join(m['itos'][i] for i in range(m['vocab_size']))}; "
    "json.dump({'tokenizer':t},open(sys.argv[2],'w'))"
)


class Prepared(NamedTuple):
    """A prepared text.

    Attributes:
        sha256: hash of both files and the tokenizer.
        train, val: memory maps of ids, (N,).
        bytes: UTF-8 bytes of text in train and in val.
    """

    sha256: str
    tokenizer: Tokenizer
    train: np.ndarray
    val: np.ndarray
    bytes: tuple[int, int]


def dtype_of(vocab_size: int) -> np.dtype[Any]:
    """The dtype of the files: nanoGPT's uint16 if it can hold all ids, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def is_prepared(folder: Path) -> bool:
    """Whether a folder contains prepared text, from nanoGPT or from gptjax, finished or not."""
    return any((folder / name).is_file() for name in (TRAIN, VAL, META, STATE))


def describes_prepared(path: Path) -> bool:
    """Whether a file is the meta.json, or the state, of a prepared text in the same folder."""
    return path.name in (META, STATE) and any(path.parent.glob(TRAIN + "*"))


def file_sha256(path: Path) -> str:
    """The sha256 of a file, which may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_prepared(
    folder: Path,
    named: str | None,
    of_run: Tokenizer | None,
    data_dir: Path,
    tell: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Opens a prepared text, and checks that its files match meta.json.

    Args:
        named: `--tokenizer`, or None. A nanoGPT folder without meta.json needs it.
        of_run: the tokenizer of the run that continues with the text; None for a new run.
        data_dir, tell: as in `tokenizers.choose`.

    Raises:
        InputError: a file is missing, truncated or replaced, contains an id that is not in the
            vocabulary, or was made with another tokenizer.
    """
    has_meta = (folder / META).is_file()
    if (folder / STATE).is_file() and not has_meta:
        raise InputError(
            f"{folder} contains a text whose preparation was interrupted: give the same `prepare` "
            "command again, which continues it"
        )
    for name in (TRAIN, VAL):
        if not (folder / name).is_file():
            raise InputError(f"{folder} contains prepared text, but no {name}: prepare it again")
    meta = _checked(folder / META) if has_meta else {}
    tokenizer = _tokenizer(folder, meta, named, of_run, data_dir, tell)
    if meta and named not in (None, tokenizer.kind):
        raise InputError(
            f"--tokenizer {named}: {folder} was prepared with {tokenizer.kind}; leave the flag out"
        )
    found = [_open(folder / name, meta, tokenizer) for name in (TRAIN, VAL)]
    (train, train_bytes, train_sha256), (val, val_bytes, val_sha256) = found
    stored = {k: v for k, v in tokenizer.to_dict().items() if k != "start_id"}
    whole = hashlib.sha256(repr((train_sha256, val_sha256, stored)).encode()).hexdigest()
    return Prepared(whole, tokenizer, train, val, (train_bytes, val_bytes))


def _checked(path: Path) -> dict[str, Any]:
    """Reads a meta.json, and checks the types of what is in it. A hand-written one may have less.

    Raises:
        InputError: a value has the wrong type, or a newer version wrote the file.
    """
    meta = read_json(path, links=True)
    if meta.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{path} is of format {meta['format']!r:.40}, but this version reads {FORMAT}: prepare "
            "the text again"
        )
    splits = {name: meta.get(name, {}) for name in ("train", "val")}
    wrong = [name for name, value in splits.items() if not isinstance(value, dict)]
    for name, split in splits.items():
        for key in ("tokens", "bytes") if name not in wrong else ():
            value = split.get(key, 0)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                wrong.append(f"{key} of {name}")
    if not isinstance(meta.get("tokenizer"), dict):
        wrong.append("tokenizer")
    if wrong:
        raise InputError(f"{path} is damaged ({', '.join(wrong)}): prepare the text again")
    return meta


def _tokenizer(
    folder: Path,
    meta: dict[str, Any],
    named: str | None,
    of_run: Tokenizer | None,
    data_dir: Path,
    tell: Callable[[str], None],
) -> Tokenizer:
    """The tokenizer of a prepared text: meta.json's, else the run's, else the one in `named`."""
    if meta:
        try:
            return tokenizers.from_dict(meta["tokenizer"])
        except InputError as error:
            raise InputError(f"{folder / META}: {error}") from error
    if of_run is not None:
        return of_run
    if (folder / PICKLE).exists():
        command = joined("python", "-c", CONVERT, folder / PICKLE, folder / META)
        command = command.replace("python", python(), 1)
        raise InputError(
            f"{folder / PICKLE} is a pickle, which can run code and is never opened here; if you "
            f"trust it, `{command}` writes {META} beside it"
        )
    if named in (None, "char", "bpe"):
        raise InputError(
            f"{folder} has no {META} that says which tokenizer made it: if it was GPT-2's, as in "
            "nanoGPT, add --tokenizer gpt2, or the folder of the vocabulary"
        )
    return tokenizers.choose(named or "", list, 0, data_dir, tell)


def _open(path: Path, meta: dict[str, Any], tokenizer: Tokenizer) -> tuple[np.ndarray, int, str]:
    """Opens a file: returns its ids, the number of UTF-8 bytes of their text, and its sha256.

    If meta.json describes the file and it is very large, only its size is checked.
    """
    dtype = np.dtype("<u2") if not meta.get("dtype") else dtype_of(tokenizer.vocab_size)
    size = path.stat().st_size
    stored = meta.get(path.stem) or {}
    if size == 0 or size % dtype.itemsize:
        raise InputError(
            f"{path} has {size} bytes, but must have a multiple of {dtype.itemsize}: it is "
            "truncated, or does not contain ids"
        )
    tokens = np.memmap(path, dtype, "r")
    if stored.get("tokens", len(tokens)) != len(tokens):
        raise InputError(
            f"{path} has {len(tokens)} tokens, but {META} says {stored['tokens']}: it is "
            "truncated, or another file; prepare it again"
        )
    if {"sha256", "bytes"} <= stored.keys() and size > VERIFIED:
        check_ids(tokens[:CHUNK], tokenizer.vocab_size, str(path))
        return tokens, stored["bytes"], stored["sha256"]
    sha256, counts = hashlib.sha256(), np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        check_ids(chunk, tokenizer.vocab_size, str(path), start)
        sha256.update(chunk.data)
        if "bytes" not in stored:
            counts += np.bincount(chunk, minlength=tokenizer.vocab_size)
    if stored.get("sha256", sha256.hexdigest()) != sha256.hexdigest():
        raise InputError(
            f"{path} is not the file that {META} describes: its sha256 differs; prepare it again"
        )
    count = stored.get("bytes", int(counts @ tokenizer.byte_lengths()))
    return tokens, count, sha256.hexdigest()


def check_ids(tokens: np.ndarray, vocab_size: int, source: str, start: int = 0) -> None:
    """Checks that all ids are in the vocabulary.

    Args:
        start: the index of the first id, for the message.

    Raises:
        InputError: an id is not; the message names the id and its index.
    """
    if tokens.max(initial=0) >= vocab_size:
        at = int((tokens >= vocab_size).argmax())
        raise InputError(
            f"{source}: token {start + at} has id {tokens[at]}, but the vocabulary has "
            f"only {vocab_size} ids: another tokenizer made the text"
        )
