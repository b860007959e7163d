"""Measures `prepare`: the memory of each process, and the rate beside `tokenizers` alone.

python benchmarks/preparing.py                  1 GB: about 8 minutes on 2 cores; 2 GB of disk
python benchmarks/preparing.py --only rate      the rate alone, with a tenth of the text
python benchmarks/preparing.py --megabytes 50 --only memory
python benchmarks/preparing.py --quick          a tiny text, only to check that it works

It needs Linux and the extra `data`. The text is tiny Shakespeare's speeches, recombined to many
documents; the command `prepare` tokenizes it with a BPE of 4,096 ids. The exit status is 1 if a
process took more than 500 MB or, with a text of 1 GB or more, over 10 % more than for a tenth of
the text.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

from benchmarks.real_text import speeches, write_documents  # noqa: E402
from benchmarks.watching import Watched, can_watch, watch  # noqa: E402
from compare.measuring.machine import machine  # noqa: E402
from gptjax.files import read_json  # noqa: E402
from gptjax.text import tokenizers  # noqa: E402
from gptjax.text.bpe import BpeTokenizer  # noqa: E402
from gptjax.text.documents import Documents, find  # noqa: E402

MOST, GROWTH = 500.0, 1.1  # MB of a process; times what a tenth of the text takes
COMPARED = 100.0  # MB of text, from which on a tenth is enough to fill every buffer
AT_ONCE = 4_000_000  # characters that `tokenizers` encodes at once, alone: more gain nothing


class Prepared(NamedTuple):
    """One run of the command: its memory, the seconds of its stages, and its meta.json."""

    watched: Watched
    stages: dict[str, float]
    meta: dict[str, Any]

    @property
    def bytes(self) -> int:
        """The text's size."""
        return sum(self.meta[split]["bytes"] for split in ("train", "val"))

    @property
    def rate(self) -> float:
        """MB of text per second, without learning the vocabulary."""
        seconds = sum(took for stage, took in self.stages.items() if stage != "learning")
        return self.bytes / 1e6 / max(seconds, 0.05)  # the command prints tenths of a second


def main() -> int:
    """Returns exit status 0; 1 if memory exceeds a limit above; 2 if it cannot run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of text")
    parser.add_argument("--only", choices=["memory", "rate"])
    parser.add_argument("--rounds", type=int, default=3, help="of the rate")
    parser.add_argument("--alone", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(alone(*args.alone)))
        return 0
    if not can_watch() or not find_spec("tokenizers"):
        print("preparing.py: error: it needs Linux's /proc and the extra data", file=sys.stderr)
        return 2
    if args.quick:
        args.megabytes, args.rounds = 1.0, 1
    size = 512 if args.quick else 4096
    print(f"{machine()}, tokenizers {version('tokenizers')}")
    status, said = 0, speeches(ROOT / "data")
    with tempfile.TemporaryDirectory(prefix="gptjax-preparing-") as folder:
        text, out = Path(folder, "text"), Path(folder, "out")
        rows = []
        sizes = [args.megabytes / 10, args.megabytes]
        for megabytes in sizes[:1] if args.only == "rate" else sizes:
            tell(f"starting with {megabytes:g} MB")
            write_documents(text, int(1e6 * megabytes), said)
            if args.only != "rate":
                rows.append(prepare(text, out, size))
                print(row(rows[-1], is_first=len(rows) == 1), flush=True)
            if args.only != "memory" and len(rows) < 2:
                print(rate(text, out, size, args.rounds), flush=True)
            shutil.rmtree(text)
        if rows:
            small, large = (max(found.watched.resident) for found in rows)
            status = judged(small, large, args.megabytes)
    return status


def prepare(text: Path, out: Path, vocab_size: int) -> Prepared:
    """Runs the command with a new, empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "gptjax", "prepare", str(text), "--out", str(out)]
    command += ["--tokenizer", "bpe", "--vocab-size", str(vocab_size)]
    watched = watch(command, every=0.1)
    return Prepared(watched, stages(watched.said), read_json(out / "meta.json"))


def stages(said: str) -> dict[str, float]:
    """The seconds of each stage, from the command's own last lines."""
    line = next(line for line in said.splitlines() if " documents in " in line)
    return {name: float(took) for name, took in re.findall(r"(\w+ing) ([\d.]+) s", line)}


def rate(text: Path, out: Path, vocab_size: int, rounds: int) -> str:
    """Measures the command and the package alone in turns, on the same text and vocabulary."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(prepare(text, out, vocab_size).rate)
        command = [sys.executable, __file__, "--alone", str(text), str(out)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        theirs.append(json.loads(done.stdout)["rate"])
    shares = [a / b for a, b in zip(ours, theirs, strict=True)]
    lines = ["", "| MB/s | median | range |", "|---|--:|---|"]
    for name, found in (("prepare, without learning", ours), ("tokenizers alone", theirs)):
        spread = f"{min(found):.2f} to {max(found):.2f}"
        lines.append(f"| {name} | {statistics.median(found):.2f} | {spread} |")
    spread = f"{min(shares):.0%} to {max(shares):.0%}"
    lines.append(f"| share, by round | {statistics.median(shares):.0%} | {spread} |")
    return "\n".join(lines)


def alone(text: Path, prepared: Path) -> dict[str, float]:
    """The package's fastest way to encode a text: on all cores, from memory, discarding the ids."""
    tokenizer = tokenizers.from_dict(read_json(prepared / "meta.json")["tokenizer"])
    assert isinstance(tokenizer, BpeTokenizer)
    batches: list[list[str]] = [[]]
    size = length = 0
    for piece in Documents(find([str(text)])).pieces():
        if length > AT_ONCE:
            batches, length = [*batches, []], 0
        batches[-1].append(piece.text)
        size, length = size + len(piece.text.encode()), length + len(piece.text)
    model = tokenizer._model
    began = time.perf_counter()
    for batch in batches:
        model.encode_batch_fast(batch, add_special_tokens=False)
    return {"rate": size / 1e6 / (time.perf_counter() - began)}


def row(found: Prepared, is_first: bool) -> str:
    """A line of the table of memory."""
    head = (
        "| MB of text | documents | tokens | peak MB of each process | reading | learning "
        "| encoding | MB/s without learning |\n|--:|--:|--:|---|--:|--:|--:|--:|\n"
    )
    tokens = sum(found.meta[split]["tokens"] for split in ("train", "val"))
    size, documents = found.bytes / 1e6, found.meta["documents"]
    peaks = ", ".join(f"{peak:.0f}" for peak in found.watched.resident)
    times = " | ".join(f"{took:.1f} s" for took in found.stages.values())
    return (head if is_first else "") + (
        f"| {size:,.0f} | {documents:,} | {tokens:,} | {peaks} | {times} | {found.rate:.2f} |"
    )


def judged(small: float, large: float, megabytes: float) -> int:
    """The exit status for these peaks of memory, with a tenth of the text and with all of it."""
    print(f"\nthe largest process: {large / small:.2f} times that for a tenth of the text")
    return int(large > MOST or (megabytes >= 10 * COMPARED and large > GROWTH * small))


def tell(message: str) -> None:
    """Prints progress, separately from the tables."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
