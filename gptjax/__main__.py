"""Small commands on runs.

python -m gptjax verify runs/big       checks every file of a run: which checkpoints are good
"""

import sys
from pathlib import Path

from gptjax import scripts
from gptjax.errors import InputError
from gptjax.verify import check_run


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all is well, 1 something is damaged, 2 wrong input."""
    return scripts.run_script("gptjax", run, argv)


def run(argv: list[str]) -> int:
    """The command's body; raises what `run_script` turns into a line."""
    if argv in (["-h"], ["--help"]):
        print((__doc__ or "").strip())
        return 0
    if len(argv) != 2 or argv[0] != "verify":
        raise InputError("the command is `python -m gptjax verify RUN`, RUN the folder of a run")
    well = True
    for finding in check_run(Path(argv[1])):
        well &= finding.well
        print(finding.text, flush=True)
    return 0 if well else scripts.FAILED


if __name__ == "__main__":
    sys.exit(main())
