"""Measures training from a memory map: the share of a step that waits for data, and the memory.

python benchmarks/reading.py                 1 GB of ids: about 8 minutes on 2 cores; 2 GB of disk
python benchmarks/reading.py --only speed    three minutes, on a quiet machine
python benchmarks/reading.py --quick         a tiny text and model, to check that it works

It needs Linux. The text is tiny Shakespeare's speeches, recombined to many documents, prepared as
characters of two bytes each. Speed: two processes in turns train the preset for a CPU; one reads
the text from the map, the other from the device's memory. Memory: `train.py` itself, on that text
and on tiny Shakespeare. All the time in which the host asks for tokens counts as waiting, although
the device has work in most of it. The exit status is 1 if waiting takes 3 % of a step or more, or
if the large text takes over 20 MB more memory, not counting the map's own pages.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

from benchmarks.real_text import speeches, write_documents  # noqa: E402
from benchmarks.updates import measure  # noqa: E402
from benchmarks.watching import can_watch, watch  # noqa: E402
from compare.measuring.machine import machine, versions  # noqa: E402
from gptjax.backends.execution import with_micro_batches  # noqa: E402
from gptjax.presets import preset_for  # noqa: E402

PRESET = "shakespeare-cpu"
# AdamW compiles in half the time.
TOY: dict[str, Any] = {"optimizer": "adamw", "n_layer": 1, "n_embd": 16, "block_size": 16}
WAITS, MORE = 0.03, 20.0  # of a step; MB
STEPS = 60  # steps of a run whose memory is measured: several blocks of batches, and an evaluation
MAPPED, RESIDENT, SMALL = "large text, mapped", "large text, on the device", "small text"


def main() -> int:
    """Returns exit status 0; 1 if a figure exceeds a limit above; 2 if it cannot run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of ids")
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=5.0, help="of training in a turn")
    parser.add_argument("--rounds", type=int, default=3, help="of the runs whose memory is seen")
    args = parser.parse_args()
    if not can_watch():
        print("reading.py: error: it needs Linux's /proc", file=sys.stderr)
        return 2
    changes = TOY if args.quick else {}
    if args.quick:
        args.megabytes, args.turns, args.seconds, args.rounds = 2.0, 2, 0.1, 1
    print(f"{machine()}, {versions()}")
    misses = []
    with tempfile.TemporaryDirectory(prefix="gptjax-reading-") as name:
        folder = Path(name)
        tell(f"starting with {args.megabytes:g} MB of ids")
        write_documents(folder / "text", int(1e6 * args.megabytes / 2), speeches(ROOT / "data"))
        prepare = [sys.executable, "-m", "gptjax", "prepare", str(folder / "text")]
        prepare += ["--out", str(folder / "large")]
        subprocess.run(prepare, cwd=ROOT, stdout=sys.stderr, check=True)
        shutil.rmtree(folder / "text")
        if args.only != "memory":
            misses.append(speed(folder, changes, args.turns, args.seconds))
        if args.only != "speed":
            steps = 2 if args.quick else STEPS
            misses.append(memory(folder, changes, args.rounds, steps))
    return 0 if args.quick else int(any(misses))


def speed(folder: Path, changes: dict[str, Any], turns: int, seconds: float) -> bool:
    """Prints the table of speed; returns whether waiting exceeds its limit."""
    preset = preset_for("cpu", PRESET).replace(data=str(folder / "large"), **changes)
    preset = with_micro_batches(preset, "cpu")
    rows = measure(
        {
            MAPPED: preset.replace(data_on_device="no"),
            RESIDENT: preset.replace(data_on_device="yes"),
        },
        ROOT / "data",
        folder,
        turns=turns,
        seconds=seconds,
        tell=tell,
    )
    print(f"\n{rows[MAPPED]['tokens']:,} tokens\n")
    print("| | ms a step, median | range | asking for tokens | share, largest of a turn |")
    print("|---|--:|---|--:|--:|")
    for name, row in rows.items():
        step, waited = (statistics.median(row[key]) for key in ("step", "waited"))
        spread = f"{1000 * min(row['step']):.1f} to {1000 * max(row['step']):.1f}"
        print(
            f"| {name} | {1000 * step:.1f} | {spread} "
            f"| {1000 * waited:.3f} ms, {waited / step:.2%} | {max(shares(row)):.2%} |"
        )
    pairs = zip(rows[MAPPED]["step"], rows[RESIDENT]["step"], strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"\nA step from the map takes {ratio:.3f} times one from the device's memory.", flush=True
    )
    return statistics.median(shares(rows[MAPPED])) >= WAITS


def shares(row: dict[str, Any]) -> list[float]:
    """For each turn, the share of a step in which the host asked for tokens."""
    return [waited / step for waited, step in zip(row["waited"], row["step"], strict=True)]


def memory(folder: Path, changes: dict[str, Any], rounds: int, steps: int) -> bool:
    """Prints the table of memory; returns whether the large text exceeds its limit."""
    flags = [x for name, value in changes.items() for x in (f"--{name}", str(value))]
    train = [sys.executable, str(ROOT / "train.py"), "--preset", PRESET, *flags]
    train += ["--max-iters", str(steps), "--eval-iters", "20"]
    train += ["--out-dir", str(folder / "run")]
    texts = {
        SMALL: ["--data", "shakespeare", "--data-on-device", "yes"],
        f"{SMALL}, from the host": ["--data", "shakespeare", "--data-on-device", "no"],
        MAPPED: ["--data", str(folder / "large"), "--data-on-device", "no"],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in texts}
    for number in range(rounds):
        for name, which in texts.items():
            tell(f"starting run {number + 1} of {rounds}, {name}")
            seen = watch([*train, *which])
            found[name].append((seen.anonymous[0], seen.resident[0]))
            shutil.rmtree(folder / "run")
    print("\n| peak MB of a run | without mapped files, median | range | resident, median |")
    print("|---|--:|---|--:|")
    for name, peaks in found.items():
        own, all_of_it = zip(*peaks, strict=True)
        spread = f"{min(own):.0f} to {max(own):.0f}"
        print(
            f"| {name} | {statistics.median(own):.0f} | {spread} "
            f"| {statistics.median(all_of_it):.0f} |"
        )
    *small, large = ([own for own, _ in peaks] for peaks in found.values())
    # By round: the first one compiles, which takes memory; the others find the program in a cache.
    more = statistics.median(x - min(each) for x, *each in zip(large, *small, strict=True))
    print(f"\nThe large text takes {more:.0f} MB more than the smaller of the others.", flush=True)
    return more > MORE


def tell(message: str) -> None:
    """Prints progress, separately from the tables."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
