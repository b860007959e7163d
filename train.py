"""Trains a GPT on a text and writes a run that sample.py reads.

python train.py                                    the preset that suits this machine
python train.py --data my.txt --n-layer 4 --n-embd 128
python train.py --resume                           go on with the newest run

The story is in gptjax/app/train.py.
"""

import sys
from pathlib import Path

try:
    from gptjax.app import train
    from gptjax.text.shell import scripts
except ValueError as error:  # JAX reads its environment variables when it is imported
    sys.stderr.write(f"train.py: error: {error}\n")
    sys.exit(2)

ROOT = Path(__file__).resolve().parent


def main(argv: list[str] | None = None, *, data_dir: Path = ROOT / "data") -> int:
    """Exit status; the flags are the process's own if `argv` is None."""
    return train.main(argv, commands=scripts(ROOT), data_dir=data_dir)


if __name__ == "__main__":
    sys.exit(main())
