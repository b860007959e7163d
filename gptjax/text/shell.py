"""Commands for a person to paste into a shell: quoted for it, and right where they are printed."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

PROGRAM = "gptjax"


class Commands(NamedTuple):
    """What a user types to train and to sample: hints, help and errors name it."""

    train: str
    sample: str


def quoted(word: str | Path) -> str:
    """A word as a shell reads it back.

    Characters that no terminal shows, such as a newline in a path, are written as their bytes.
    """
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"  # or every program takes it for a flag
    if text.isprintable():
        return shlex.quote(text)
    as_bytes = (
        chr(x) if 32 <= x < 127 and x not in b"'\\" else f"\\x{x:02x}" for x in os.fsencode(text)
    )
    return f"$'{''.join(as_bytes)}'"


def joined(*words: str | Path) -> str:
    """A command of words, each quoted."""
    return " ".join(quoted(word) for word in words)


def python() -> str:
    """What starts this Python: its name, if the shell finds it by that, or else its path."""
    return _typed(Path(sys.executable or "python"), ("python", "python3"))


def program(path: Path | None = None) -> str:
    """What starts the command `gptjax`.

    Args:
        path: of the installed program; by default the one beside this Python, if there is one.
    """
    beside = Path(sys.executable or "").with_name(PROGRAM)
    path = beside if path is None else path
    return _typed(path, (PROGRAM,)) if path.is_file() else f"{python()} -m {PROGRAM}"


def commands(name: str) -> Commands:
    """The commands of the program that is started by `name`."""
    return Commands(f"{name} train", f"{name} sample")


def scripts(root: Path) -> Commands:
    """The two scripts of the clone in `root`, as they are started from this working directory."""
    found = (f"{python()} {quoted(_short(root / name))}" for name in ("train.py", "sample.py"))
    return Commands(*found)


def found() -> Commands:
    """The commands that start this package, wherever it lies: installed, or in a clone."""
    root = Path(__file__).resolve().parents[2]
    beside = Path(sys.executable or "").with_name(PROGRAM)
    in_clone = all((root / name).is_file() for name in ("train.py", "sample.py"))
    return scripts(root) if in_clone and not beside.is_file() else commands(program())


def _typed(path: Path, names: tuple[str, ...]) -> str:
    """An executable's name where the shell finds that very file by it, or else its path."""
    for name in names:
        there = shutil.which(name)
        if there and _place(Path(there)) == _place(path):
            return name
    short = _short(path)
    return quoted(short if "/" in str(short) else f"./{short}")


def _place(path: Path) -> tuple[str, str]:
    """The folder and the file: links of two environments may lead to one file."""
    return os.path.realpath(path.parent), os.path.realpath(path)


def _short(path: Path) -> Path:
    """A path from the working directory, if that is the shorter one."""
    try:
        relative = Path(os.path.relpath(path))
    except (OSError, ValueError):  # the working directory is gone, or on another drive
        return path
    return min(relative, path, key=lambda p: len(str(p)))
