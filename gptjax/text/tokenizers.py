"""Makes the tokenizer that `--tokenizer` names, or the one that a run stores."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gptjax.errors import InputError, one_line
from gptjax.fields import check
from gptjax.text import bpe, fetching
from gptjax.text.byte_level import ByteTokenizer
from gptjax.text.gpt2_folder import VOCABULARY, is_folder_of_vocabulary, read_folder
from gptjax.text.outputs import write_named
from gptjax.text.shell import joined
from gptjax.tokenizer import CharTokenizer

NAMES = ("char", "byte", "bpe", "gpt2")
# The default of --vocab-size, for a vocabulary that is learned.
BPE_SIZE = 4096
# GPT-2's vocabulary: the names of its files, their size, sha256 and URL.
GPT2 = {
    "vocab.json": (
        1_042_301,
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json",
    ),
    "merges.txt": (
        456_318,
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
    ),
}


class Tokenizer(Protocol):
    """The interface of a tokenizer.

    Attributes:
        kind: one of `NAMES`.
        vocab_size: the number of ids.
        start_id: the token that starts a text if there is no prompt.
        end_id: the token that ends a document; None for characters.
    """

    @property
    def kind(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_id(self) -> int | None: ...

    start_id: int

    def __contains__(self, character: object) -> bool: ...

    def encode(self, text: str) -> np.ndarray: ...

    def encode_prompt(self, text: str) -> np.ndarray: ...

    def decode(self, ids: Any) -> str: ...

    def byte_lengths(self) -> np.ndarray: ...

    def to_dict(self) -> dict[str, Any]: ...


def from_dict(value: dict[str, Any]) -> Tokenizer:
    """Makes the tokenizer that a tokenizer.json describes.

    Raises:
        InputError: its type is not in `NAMES`, or it is damaged.
    """
    match value.get("type"):
        case "char":
            return CharTokenizer.from_dict(value)
        case "byte":
            return ByteTokenizer.from_dict(value)
        case "bpe" | "gpt2":
            return bpe.BpeTokenizer.from_dict(value)
    raise InputError(
        f"unknown tokenizer type {value.get('type')!r:.40}: the known ones are {', '.join(NAMES)}"
    )


def choose(
    name: str,
    texts: Callable[[], Iterable[str]],
    vocab_size: int,
    data_dir: Path,
    tell: Callable[[str], None],
) -> ByteTokenizer | bpe.BpeTokenizer:
    """Makes the tokenizer of a new run or prepared text, of any kind except `char`.

    Args:
        name: `byte`, `bpe`, `gpt2`, or the path of a folder with a vocabulary like GPT-2's.
        texts: returns the pieces of the training text, from which `bpe` learns.
        vocab_size: size of the vocabulary that `bpe` learns.
        data_dir: the folder in which GPT-2's vocabulary is, or is downloaded to.
        tell: receives lines about the progress.

    Raises:
        InputError: the tokenizer does not exist, a package is missing, or the vocabulary cannot be
            read or downloaded.
    """
    if name == "byte":
        return ByteTokenizer()
    if name == "bpe":
        learned = bpe.learn(texts(), vocab_size)
        if learned.vocab_size < vocab_size:
            tell(
                f"the text is small: its vocabulary has {learned.vocab_size} ids, not {vocab_size}"
            )
        return learned
    return gpt2(fetch_gpt2(data_dir, tell) if name == "gpt2" else Path(name))


def with_vocab_size(given: dict[str, Any]) -> dict[str, Any]:
    """Adds the size of the vocabulary to the flags of a new run that learns one, if it is missing.

    Raises:
        InputError: as `check_tokenizer`.
    """
    check_tokenizer(given.get("tokenizer"), given.get("vocab_size"))
    return {"vocab_size": BPE_SIZE} | given if given.get("tokenizer") == "bpe" else given


def check_tokenizer(name: str | None, vocab_size: int | None) -> None:
    """Validates `--tokenizer` and `--vocab-size`, each None if it was not given.

    Raises:
        InputError: the tokenizer is neither one of `NAMES` nor a folder with a vocabulary, or a
            vocabulary of this size cannot be learned.
    """
    if vocab_size is not None:
        if name != "bpe":
            raise InputError(
                "--vocab-size is for a vocabulary that is learned: add --tokenizer bpe, or leave "
                "it out"
            )
        rule = f"must be from {bpe.LEAST} (all bytes, and the end of a text) to {bpe.MOST}"
        check(bpe.LEAST <= vocab_size <= bpe.MOST, "vocab_size", vocab_size, rule)
    if name is None or name in NAMES or is_folder_of_vocabulary(Path(name)):
        return
    if Path(name).is_dir():
        raise InputError(
            f"--tokenizer {name}: the folder has no vocabulary: tokenizer.json, or "
            f"{' and '.join(VOCABULARY)}"
        )
    raise InputError(
        f"--tokenizer {name!r} must be one of {', '.join(NAMES)}, or a folder with the vocabulary "
        "of a GPT-2"
    )


def gpt2(folder: Path) -> bpe.BpeTokenizer:
    """Reads the vocabulary of a GPT-2 folder.

    Raises:
        InputError: the folder has none, or one that divides texts differently from GPT-2's.
    """
    model = read_folder(folder, "--tokenizer gpt2", "give a folder that has them")
    try:
        return bpe.of_folder(model)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def fetch_gpt2(data_dir: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Returns the folder of GPT-2's own vocabulary, after downloading it if it is missing.

    Raises:
        InputError: the vocabulary cannot be downloaded, or an existing file is not GPT-2's.
    """
    folder = data_dir / "gpt2"
    for name, (size, sha256, url) in GPT2.items():
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise InputError(
                    f"{path} is not GPT-2's: delete it to have it fetched again, or give the "
                    f"folder as --tokenizer {joined(folder)}"
                )
            continue
        tell(f"fetching {name} of GPT-2 from {url}")
        try:
            content = b"".join(fetching.from_web(url, size))
            problem = "its sha256 is not GPT-2's"
        except Exception as error:
            content, problem = b"", one_line(error, 200)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputError(
                f"GPT-2's vocabulary could not be fetched from {url} ({problem}): copy it to "
                f"{path}, or give a folder with vocab.json and merges.txt to --tokenizer"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_named(path, content)
    return folder
