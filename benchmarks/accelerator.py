"""Measures speed on a GPU or TPU, and checks that results there are correct.

python benchmarks/accelerator.py                   speed, at most nine minutes
python benchmarks/accelerator.py --train           `shakespeare` to the end, three seeds
python benchmarks/accelerator.py --candidates      other settings for it, one run each
python benchmarks/accelerator.py --resume-check    a checkpoint there and on a CPU
python benchmarks/accelerator.py --deterministic   a run twice, bit for bit
python benchmarks/accelerator.py --quick           all of it at toy size, on whatever JAX finds

Flags can be combined; all parts then share the time. The most important part comes first, and each
part has its own process. Every result goes to accelerator.md and accelerator.json at once, so an
interrupted run leaves a page with its results so far. Parts that are measured another day on the
same kind of device are added to that page.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

from benchmarks.accelerator_parts import page  # noqa: E402
from benchmarks.accelerator_parts.page import DEVICE, PARTS, Part  # noqa: E402
from benchmarks.accelerator_parts.process import run  # noqa: E402
from gptjax.errors import InputError, one_line  # noqa: E402

MINUTES = 9.0
LEAST = 15.0  # seconds; with less time left, a part is skipped


def main() -> int:
    """Returns exit status 1 if a part failed or a required equality does not hold; otherwise 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="toy sizes: that it works, no figures")
    kinds = [part.flag for part in PARTS if part.flag]
    for flag in dict.fromkeys(kinds):
        parser.add_argument(f"--{flag}", action="store_true", help="see above")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="in all, at most [9]")
    parser.add_argument("--data", default="shakespeare", help="as train.py's")
    parser.add_argument("--out", type=Path, help="folder of the page [docs; with --quick, none]")
    args = parser.parse_args()
    if not 0 < args.minutes < float("inf"):
        parser.error(f"--minutes ({args.minutes}) must be above 0 and finite")
    asked = {flag for flag in kinds if getattr(args, flag.replace("-", "_"))}
    chosen = [
        part
        for part in PARTS
        if (part.flag in asked if asked else args.quick or not part.flag) or part is DEVICE
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no part keeps running
    deadline = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix="gptjax-accelerator-") as folder:
        out = args.out or (Path(folder) if args.quick else ROOT / "docs")
        try:
            results = page.opened(out, args.quick)
            page.write(out, results)
        except (InputError, OSError) as error:
            parser.error(one_line(error, 300))
        for part in chosen:
            measure(part, results, out, args.data, deadline, Path(folder))
            print(page.section(part, results), flush=True)
            if part is DEVICE and "device" not in results:
                return 1
    return int(any(is_wrong(results["parts"][part.name]) for part in chosen))


def measure(
    part: Part, results: dict[str, Any], out: Path, data: str, deadline: float, folder: Path
) -> None:
    """Measures one part, and writes the page again after each of its rows."""
    settings = {**part.settings, "quick": results["quick"]}
    entry, began = page.entry(settings), time.monotonic()
    left = deadline - began
    if left < LEAST:
        entry["why"] = "left out: the time was over"
        results["parts"].setdefault(part.name, entry)  # keep earlier measurements
        page.write(out, results)
        return
    if part.data:
        settings = {**settings, "data": data}  # the page should not show a path of this machine
    rows: dict[str, dict[str, Any]] = {}

    def found(row: dict[str, Any]) -> None:
        rows[row["key"]] = row
        entry["rows"] = list(rows.values())
        if part is DEVICE:
            page.use_device(results, row)
        page.write(out, results)

    results["parts"][part.name] = entry
    entry["why"] = "cut off with the whole run"  # until it is finished
    page.write(out, results)
    print(f"== {part.title}", file=sys.stderr, flush=True)
    entry["why"] = run(part.module, settings, min(left, part.limit), found, folder)
    entry["seconds"] = round(time.monotonic() - began, 1)
    page.write(out, results)


def is_wrong(entry: dict[str, Any]) -> bool:
    """Whether a part failed, or found a difference that is not allowed."""
    failed = entry["why"].startswith("failed")
    return failed or any(
        row.get("ok") is False or row.get("status") not in (None, 0) for row in entry["rows"]
    )


if __name__ == "__main__":
    sys.exit(main())
