"""Files of one JSON object a line, each with its step: metrics.jsonl and samples.jsonl."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gptjax.files import open_regular, parse_json


def read_lines(
    path: Path, is_line: Callable[[Any], bool], max_bytes: int
) -> Iterator[dict[str, Any]]:
    """The objects of a file, none if there is no file; malformed lines are skipped.

    Those are a torn one, one longer than `max_bytes`, one that `is_line` denies, and one whose
    `step` is not after the last one's.

    Raises:
        InputError: it is no regular file.
    """
    if not path.exists() and not path.is_symlink():
        return
    before = 0
    with open_regular(path) as file:
        while data := file.readline(max_bytes):
            if len(data) == max_bytes and not data.endswith(b"\n"):
                while rest := file.readline(max_bytes):
                    if rest.endswith(b"\n"):
                        break
                continue
            try:
                line = parse_json(data)
            except ValueError:
                continue
            if is_line(line) and line["step"] > before:
                before = line["step"]
                yield line


def as_line(value: dict[str, Any]) -> bytes:
    """One object as a line of such a file, in ASCII."""
    return (json.dumps(value, allow_nan=False) + "\n").encode()


def count_lines(path: Path) -> int:
    """How many lines there are, well formed or not; an unfinished last one counts.

    Raises:
        InputError: it is no regular file.
    """
    lines, last = 0, b"\n"
    if path.exists() or path.is_symlink():
        with open_regular(path) as file:
            while data := file.read(2**20):
                lines, last = lines + data.count(b"\n"), data[-1:]
    return lines + (last != b"\n")
