"""Real text of any size: tiny Shakespeare's speeches recombined, in many documents."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gptjax.text.corpora import load_text

# Mean sizes in characters, if the text is that long: documents of a web corpus, and chapters of
# books.
LINE, FILE = 3000, 100_000
LINES_FILE = 20_000_000  # of a .jsonl file


def speeches(data_dir: Path) -> list[str]:
    """The speeches in tiny Shakespeare, each with the speaker's name above it."""
    return load_text("shakespeare", data_dir).text.strip().split("\n\n")


def write_documents(folder: Path, size: int, speeches: list[str], seed: int = 0) -> None:
    """Writes documents of about `size` characters in all: half in .txt files, half in .jsonl files.

    The same arguments give the same files.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number, text in enumerate(documents(rng, size // 2, FILE, speeches)):
        (folder / f"{number:06}.txt").write_text(text)
    file, written = None, LINES_FILE
    try:
        for number, text in enumerate(documents(rng, size - size // 2, LINE, speeches)):
            if file is None or written >= LINES_FILE:
                if file is not None:
                    file.close()
                file, written = (folder / f"{number:06}.jsonl").open("w"), 0
            written += file.write(json.dumps({"text": text}) + "\n")
    finally:
        if file is not None:
            file.close()


def documents(rng: np.random.Generator, size: int, mean: int, speeches: list[str]) -> Iterator[str]:
    """Documents of `size` characters in all: speeches in a random order, the last one cut."""
    each = sum(map(len, speeches)) / len(speeches) + 2
    while size > 0:
        length = min(size, 1 + int(rng.exponential(mean)))
        chosen = rng.integers(0, len(speeches), 3 + int(2 * length / each))
        text = "\n\n".join([speeches[i] for i in chosen])[:length]
        size -= len(text)
        yield text
