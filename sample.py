"""Samples text from a run of train.py. Standard output is the text alone.

python sample.py                                   from the newest run
python sample.py --out-dir runs/big --prompt "ROMEO:" --temperature 0.8 --top-k 40
python sample.py --prompt "ROMEO:" --prompt "JULIET:" --num-samples 3
python sample.py --score my.txt                    the loss of a text instead
python sample.py --from-huggingface gpt2 --prompt "Once upon a time"

The story is in gptjax/app/sample.py.
"""

import sys
from pathlib import Path

try:
    from gptjax.app import sample
    from gptjax.text.shell import scripts
except ValueError as error:  # JAX reads its environment variables when it is imported
    sys.stderr.write(f"sample.py: error: {error}\n")
    sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    """Exit status; the flags are the process's own if `argv` is None."""
    return sample.main(argv, commands=scripts(Path(__file__).resolve().parent))


if __name__ == "__main__":
    sys.exit(main())
