"""Commands in messages: quoted, and correct for how this Python and this program were started."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

PROGRAM = "gptjax"


class Commands(NamedTuple):
    """The commands that a user types to train, sample and write a page, for help and messages."""

    train: str
    sample: str
    page: str


def quoted(word: str | Path) -> str:
    """A word quoted for a shell.

    Characters that a terminal does not show, such as a newline in a path, are written as bytes.
    """
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"  # a path that begins with a dash would be taken for a flag
    if text.isprintable():
        return shlex.quote(text)
    as_bytes = (
        chr(x) if 32 <= x < 127 and x not in b"'\\" else f"\\x{x:02x}" for x in os.fsencode(text)
    )
    return f"$'{''.join(as_bytes)}'"


def joined(*words: str | Path) -> str:
    """A command from words, each quoted."""
    return " ".join(quoted(word) for word in words)


def python() -> str:
    """The command that starts this Python: its name if the shell finds it, else its path."""
    return _typed(Path(sys.executable or "python"), ("python", "python3"))


def program(path: Path | None = None) -> str:
    """The command that starts `gptjax`.

    Args:
        path: the installed program; by default the one in this Python's folder, if there is one.
    """
    beside = Path(sys.executable or "").with_name(PROGRAM)
    path = beside if path is None else path
    return _typed(path, (PROGRAM,)) if path.is_file() else f"{python()} -m {PROGRAM}"


def commands(name: str) -> Commands:
    """The commands of the program `name`."""
    return Commands(f"{name} train", f"{name} sample", f"{name} page")


def scripts(root: Path) -> Commands:
    """The commands that start the scripts of the clone in `root` from this directory."""
    train, sample = (
        f"{python()} {quoted(_short(root / name))}" for name in ("train.py", "sample.py")
    )
    page = "" if str(_short(root)) == "." else f"PYTHONPATH={quoted(_short(root))} "
    return Commands(train, sample, f"{page}{python()} -m {PROGRAM} page")


def found() -> Commands:
    """The commands for this copy of the package, whether it is installed or a clone."""
    root = Path(__file__).resolve().parents[2]
    beside = Path(sys.executable or "").with_name(PROGRAM)
    in_clone = all((root / name).is_file() for name in ("train.py", "sample.py"))
    return scripts(root) if in_clone and not beside.is_file() else commands(program())


def _typed(path: Path, names: tuple[str, ...]) -> str:
    """An executable's name if the shell finds that same file by name, else its path."""
    for name in names:
        there = shutil.which(name)
        if there and _place(Path(there)) == _place(path):
            return name
    short = _short(path)
    return quoted(short if "/" in str(short) else f"./{short}")


def _place(path: Path) -> tuple[str, str]:
    """The real folder and the real file. Two environments may link to the same file."""
    return os.path.realpath(path.parent), os.path.realpath(path)


def _short(path: Path) -> Path:
    """The path relative to the working directory if that is shorter, else the path itself."""
    try:
        relative = Path(os.path.relpath(path))
    except (OSError, ValueError):  # the working directory is gone, or on another drive
        return path
    return min(relative, path, key=lambda p: len(str(p)))
