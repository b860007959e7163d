"""samples.jsonl: the text that a run generated at each evaluation, in order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptjax.files import append, whole_file
from gptjax.store.lines import as_line, read_lines

# A character takes at most 12 bytes of a line, so a line is always shorter than the limit.
MAX_CHARACTERS = 4096
MAX_LINE_BYTES = 2**16


class SamplesLog:
    """Appends to a run's samples.jsonl.

    Opening the file drops the samples after `step`, where the run continues. A sample is written
    after its checkpoint, so a process that is killed in between leaves the step without a sample.
    That does no harm, because only people read samples.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        with whole_file(path) as file:
            for line in read_samples(path):
                if line["step"] <= step:
                    file.write(as_line(line))

    def add(self, step: int, text: str) -> None:
        """Appends the sample of a step, cut off after `MAX_CHARACTERS`.

        Raises:
            OSError: the sample cannot be written; the file is unchanged.
        """
        append(self._path, as_line({"step": step, "text": text[:MAX_CHARACTERS]}))


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a samples.jsonl, each with `step` and `text`. Skips malformed lines.

    Runs of version 0.2.0 and before have no such file, so this yields nothing.

    Raises:
        InputError: the path is not a regular file.
    """
    return read_lines(path, _is_line, MAX_LINE_BYTES)


def _is_line(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"step", "text"}
        and type(value["step"]) is int
        and value["step"] < 2**31
        and isinstance(value["text"], str)
    )
