"""Files with one JSON object per line, each with its step: metrics.jsonl and samples.jsonl."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gptjax.files import open_regular, parse_json


def read_lines(
    path: Path, is_line: Callable[[Any], bool], max_bytes: int
) -> Iterator[dict[str, Any]]:
    """Yields the objects in a file, or none if the file does not exist. Skips malformed lines.

    A line is malformed if it is not complete JSON, is longer than `max_bytes`, fails `is_line`, or
    has a `step` that is not greater than the previous line's.

    Raises:
        InputError: the path is not a regular file.
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
    """Formats one object as a line of such a file, in ASCII."""
    return (json.dumps(value, allow_nan=False) + "\n").encode()


def count_lines(path: Path) -> int:
    """Counts all lines, malformed ones and an unfinished last one included.

    Raises:
        InputError: the path is not a regular file.
    """
    lines, last = 0, b"\n"
    if path.exists() or path.is_symlink():
        with open_regular(path) as file:
            while data := file.read(2**20):
                lines, last = lines + data.count(b"\n"), data[-1:]
    return lines + (last != b"\n")
