"""The command `gptjax`, which is also `python -m gptjax`.

gptjax train       trains a GPT on a text: a clone's train.py
gptjax sample      generates text from the trained model: a clone's sample.py
gptjax verify RUN  checks every file of a run, and says which checkpoints are good
gptjax prepare     tokenizes files and folders, even those larger than memory
gptjax export      writes the model as a folder for transformers, nanoGPT or the lecture's code
gptjax page RUN    writes one HTML file that shows the model and runs it in a browser
gptjax lecture     trains the lecture's models, from the bigram table to the GPT
gptjax --version   prints the version

Each command has --help. By default, texts are saved in ./data and runs in ./runs.
"""

import difflib
import sys
from functools import partial
from pathlib import Path

try:
    from gptjax.app.script import run_script
    from gptjax.errors import InputError
    from gptjax.text import shell
    from gptjax.version import __version__
except ValueError as error:  # JAX reads its environment variables when it is imported
    sys.stderr.write(f"gptjax: error: {error}\n")
    sys.exit(2)

COMMANDS = ("train", "sample", "verify", "prepare", "export", "page", "lecture")


def main(argv: list[str] | None = None) -> int:
    """Returns the command's exit status, or 2 if there is no such command."""
    # Hints and errors name what the user typed.
    typed = Path(sys.argv[0])
    if typed.name == "__main__.py":
        program = f"{shell.python()} -m {shell.PROGRAM}"
    else:
        program = shell.program(typed if typed.name == shell.PROGRAM else None)
    return run_script(program, partial(run, program=program), argv)


def run(argv: list[str], program: str) -> int:
    """Finds the command and hands it the rest of the arguments."""
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("-h", "--help"):
        print((__doc__ or "").strip().replace("gptjax ", f"{program} "))
        return 0
    if name in ("-V", "--version"):
        print(f"gptjax {__version__}")
        return 0
    commands = shell.commands(program)
    # Each is imported only when it is called: none needs the others.
    match name:
        case "train":
            from gptjax.app import train

            return train.main(rest, commands=commands)
        case "sample":
            from gptjax.app import sample

            return sample.main(rest, commands=commands)
        case "verify":
            from gptjax.app import verify

            return verify.main(rest, command=f"{program} verify")
        case "prepare":
            from gptjax.app import prepare

            return prepare.main(rest, commands=commands, command=f"{program} prepare")
        case "export":
            from gptjax.app import export

            return export.main(rest, command=f"{program} export")
        case "page":
            from gptjax.app import page

            return page.main(rest, command=f"{program} page")
        case "lecture":
            from gptjax.lecture import __main__ as lecture

            return lecture.main(rest, command=f"{program} lecture")
    there = f"it has {', '.join(COMMANDS)} ({program} --help)"
    if not name:
        raise InputError(f"{program} needs a command: {there}")
    near = difflib.get_close_matches(name, COMMANDS, 1)
    raise InputError(
        f"{program} has no command {name!r}: " + (f"did you mean {near[0]}?" if near else there)
    )


if __name__ == "__main__":
    sys.exit(main())
