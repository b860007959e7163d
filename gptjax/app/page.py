"""The command `page`: writes one HTML file that shows a run and runs its model in a browser."""

from functools import partial
from pathlib import Path

from gptjax.app.flags import FlagParser
from gptjax.app.script import run_script, warner
from gptjax.files import write_whole
from gptjax.page.build import build_page
from gptjax.page.weights import PageDtype
from gptjax.store import runs
from gptjax.store.listing import check_no_link
from gptjax.text.outputs import check_named, write_named

HELP = """Writes one HTML file that runs the model of a run in a browser. It needs no server and
no network.

{command} runs/big                          writes runs/big/page.html
{command} runs/big --out my.html --step latest
{command} runs/big --dtype float32          exact weights; the file is twice as large

RUN is the folder of a run, by default the newest under runs/.
"""


def main(argv: list[str] | None = None, *, command: str = "gptjax page") -> int:
    """Writes the page of the run that the arguments name.

    Args:
        argv: the run's folder and flags; None means the process's arguments.
        command: what the user typed, for help and errors.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input.
    """
    return run_script(command, partial(run, command=command), argv)


def run(argv: list[str], command: str) -> int:
    """The command's body. `run_script` turns the errors it raises into one line."""
    parser = FlagParser(command, HELP.format(command=command))
    parser.usage = "%(prog)s [flags] [RUN]"
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder of the run")
    parser.add("out", Path, "file to write [page.html in the run's folder]")
    parser.add_step("show")
    parser.add("dtype", PageDtype, "dtype of the weights in the file", "float16")
    given = parser.parse(argv)
    path = Path(given["run"]) if "run" in given else runs.newest_run(with_checkpoint=True)
    out = Path(given["out"]) if "out" in given else None
    print(
        write_page(path, out, given.get("step", "best"), given.get("dtype", "float16"), command),
        flush=True,
    )
    return 0


def write_page(
    path: Path,
    out: Path | None = None,
    step: str | int = "best",
    dtype: PageDtype = "float16",
    command: str = "gptjax page",
) -> str:
    """Writes the page of a run, and returns a line about it to print.

    Args:
        out: the file to write; None means page.html in the run's folder.
        step: as in `runs.load_run`.

    Raises:
        InputError: the run or its checkpoint cannot be read, or the page is too large.
        OSError: the file cannot be written; an existing file is unchanged.
    """
    if out is not None:
        check_named(out, "--out")
    run = runs.load_run(path, step, tell=warner(command))
    page = build_page(path, run, dtype).encode()
    if out is None:
        out = path / runs.PAGE
        check_no_link(out)
        write_whole(out, page)
    else:
        write_named(out, page)
    what = f"{len(page) / 1e6:.1f} MB, step {run.step}, weights in {dtype}"
    return f"{out}: {what}; open it in a browser"
