"""Samples text from a run of train.py. Standard output is the text alone.

python sample.py                                   from the newest run
python sample.py --out-dir runs/big --prompt "ROMEO:" --temperature 0.8 --top-k 40
python sample.py --prompt "ROMEO:" --prompt "JULIET:" --num-samples 3
python sample.py --score my.txt                    the loss of a text instead
python sample.py --from-huggingface gpt2 --prompt "Once upon a time"

The story is in gptjax/app/sample.py.
"""

import sys
from functools import partial

from gptjax.app import sample
from gptjax.app.script import SCRIPTS

main = partial(sample.main, commands=SCRIPTS)

if __name__ == "__main__":
    sys.exit(main())
