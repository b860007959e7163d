"""Fetches tiny Shakespeare ahead of time: `python data/prepare.py`."""

import sys
from pathlib import Path

DATA_DIR = Path(__file__).resolve().parent
sys.path.insert(0, str(DATA_DIR.parent))  # so that it runs from a clone, nothing installed

from gptjax.app.flags import FlagParser  # noqa: E402
from gptjax.app.script import run_script  # noqa: E402
from gptjax.text.corpora import CORPORA, fetch  # noqa: E402


def prepare(argv: list[str]) -> int:
    """Fetches, verifies and says where the text is."""
    FlagParser("prepare.py", __doc__ or "").parse(argv)
    path = fetch(CORPORA["shakespeare"], DATA_DIR, tell=print)
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 as expected")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status as everywhere: 0 done, 2 no source answered."""
    return run_script("prepare.py", prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
