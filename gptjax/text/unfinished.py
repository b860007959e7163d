"""An unfinished corpus: its two files, its state, and what may be continued or overwritten.

It is `train.bin.part`, `val.bin.part` and `preparing.json`, the state: how much of the text the two
files contain. What was written after the state was saved is cut off before continuing.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from gptjax.errors import InputError
from gptjax.files import naming, read_json
from gptjax.text import tokenizers
from gptjax.text.prepared import META, STATE, TRAIN, VAL
from gptjax.text.tokenizers import Tokenizer

UNFINISHED = ".part"
# All files of a corpus. meta.json comes last.
FILES = (TRAIN, VAL, TRAIN + UNFINISHED, VAL + UNFINISHED, STATE, META)


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


def continued(
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


@contextlib.contextmanager
def opened(out: Path, progress: Progress, itemsize: int) -> Iterator[dict[bool, IO[bytes]]]:
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


def settle(files: dict[bool, IO[bytes]]) -> None:
    """Flushes the files to disk."""
    for file in files.values():
        with naming(Path(file.name)):
            file.flush()
            os.fsync(file.fileno())
