"""The command `verify`: checks which checkpoints of a run are good."""

from functools import partial
from pathlib import Path

from gptjax.app.script import FAILED, run_script
from gptjax.errors import InputError
from gptjax.store.verify import check_run
from gptjax.version import __version__


def main(argv: list[str] | None = None, *, command: str = "gptjax verify") -> int:
    """Checks every file of the run that the arguments name.

    Args:
        argv: the run's folder and nothing else; None means the process's arguments.
        command: what the user typed, for errors.

    Returns:
        Exit status: 0 all is well, 1 something is damaged, 2 wrong input.
    """
    return run_script(command, partial(run, command=command), argv)


def run(argv: list[str], command: str) -> int:
    """The command's body. `run_script` turns the errors it raises into one line."""
    if argv in (["-h"], ["--help"]):
        print(f"{command} RUN\n\nChecks every file of a run, and says which checkpoints are good.")
        return 0
    if argv in (["-V"], ["--version"]):
        print(f"gptjax {__version__}")
        return 0
    if len(argv) != 1 or (argv[0].startswith("-") and not Path(argv[0]).exists()):
        raise InputError(f"the command is `{command} RUN`, where RUN is the folder of a run")
    well = True
    for finding in check_run(Path(argv[0])):
        well &= finding.well
        print(finding.text, flush=True)
    return 0 if well else FAILED
