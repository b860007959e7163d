"""Trains a GPT on a text and writes a run that sample.py reads.

python train.py                                    the preset that suits this machine
python train.py --data my.txt --n-layer 4 --n-embd 128
python train.py --resume                           go on with the newest run

The story is in gptjax/app/train.py.
"""

import sys
from functools import partial
from pathlib import Path

from gptjax.app import train
from gptjax.app.script import SCRIPTS

main = partial(train.main, commands=SCRIPTS, data_dir=Path(__file__).resolve().parent / "data")

if __name__ == "__main__":
    sys.exit(main())
