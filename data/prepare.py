"""Downloads a named corpus, verifies it, and tokenizes it if necessary.

python data/prepare.py                     tiny Shakespeare; train.py reads it directly
python data/prepare.py enwik8              downloads to data/, and tokenizes to data/enwik8
python data/prepare.py text8 --out corpus --tokenizer bpe --vocab-size 1024
"""

import sys
from functools import partial
from pathlib import Path

DATA_DIR = Path(__file__).resolve().parent
sys.path.insert(0, str(DATA_DIR.parent))  # so that it runs from a clone, nothing installed

from gptjax.app import prepare as story  # noqa: E402
from gptjax.app.flags import FlagParser  # noqa: E402
from gptjax.app.script import run_script  # noqa: E402
from gptjax.errors import InputError  # noqa: E402
from gptjax.text import shell  # noqa: E402
from gptjax.text.corpora import fetch  # noqa: E402
from gptjax.text.records import CORPORA  # noqa: E402


def prepare(argv: list[str], data_dir: Path) -> int:
    """The script's body. Without flags, a small text is downloaded but not tokenized."""
    parser = FlagParser("prepare.py", f"{__doc__}\n{story.table()}", takes_paths=True)
    story.add_flags(parser, tokenizer="each corpus's own")
    given, names = parser.parse_with_paths(argv)
    if len(names) > 1 or not set(names) <= CORPORA.keys():
        raise InputError(
            f"give one of {', '.join(CORPORA)}, not {' '.join(names)}; files and folders are "
            f"prepared by `{shell.python()} -m gptjax prepare`"
        )
    name = names[0] if names else "shakespeare"
    if given or not CORPORA[name].is_one_text:
        commands = shell.scripts(DATA_DIR.parent)
        return story.by_name(name, given, commands, "prepare.py", data_dir)
    [path] = fetch(CORPORA[name], data_dir, story.say)
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 as expected")
    return 0


def main(argv: list[str] | None = None, *, data_dir: Path = DATA_DIR) -> int:
    """Exit status as everywhere: 0 done, 2 wrong input or no source that answers, 130 Ctrl-C."""
    return run_script("prepare.py", partial(prepare, data_dir=data_dir), argv)


if __name__ == "__main__":
    sys.exit(main())
