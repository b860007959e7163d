"""Executes the notebooks and stores what they print and draw.

python notebooks/execute.py                    all of them; writes each .ipynb from its .md
python notebooks/execute.py 3 5 --times        some of them, with the seconds of each cell
python notebooks/execute.py --check            executes all and writes nothing

The .md files are the sources, in jupytext's Markdown. The solutions of the exercises, which are
folded parts of a text cell, are executed after the notebook's cells.
"""

import argparse
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
SOURCES = sorted(FOLDER.glob("[0-9]_*.md"))
SECONDS_PER_CELL = 300  # a machine that is busy may be slow; one that hangs ends the command
A_SOLUTION = re.compile(r"<details>.*?</details>", re.DOTALL)
A_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def main(argv: list[str] | None = None) -> int:
    """Executes the notebooks that the flags name."""
    as_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_is)
    parser.add_argument("numbers", nargs="*", help="such as 3 5 [all]")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--times", action="store_true", help="the seconds of each cell")
    flags = parser.parse_args(argv)
    chosen = [path for path in SOURCES if not flags.numbers or path.name[0] in flags.numbers]
    if not chosen or len(chosen) < len(set(flags.numbers)):
        parser.error(f"numbers must be of {', '.join(path.name[0] for path in SOURCES)}")
    for path in chosen:
        began = time.monotonic()
        notebook = executed(path)
        for index, cell in enumerate(notebook.cells if flags.times else []):
            if cell.cell_type == "code":
                print(f"  {seconds_of(cell):6.2f} s  {index}: {cell.source.splitlines()[0]}")
        if not flags.check:
            write(path, notebook)
        print(f"{path.stem}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


def read(path: Path) -> Any:
    """A source as a notebook without outputs; a cell's id is its place."""
    notebook: Any = jupytext.read(path)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    return notebook


def solutions(notebook: Any) -> list[str]:
    """The code in the folded parts of a notebook's text."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [code for part in A_SOLUTION.findall(text) for code in A_BLOCK.findall(part)]


def executed(path: Path) -> Any:
    """A notebook with the outputs of its cells, after its solutions ran too.

    Raises:
        CellExecutionError: a cell or a solution raised.
        RuntimeError: one wrote to stderr: a reader should meet no warning.
    """
    notebook = read(path)
    cells = list(notebook.cells)
    notebook.cells = cells + [nbformat.v4.new_code_cell(code) for code in solutions(notebook)]
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # it warns of its own sockets
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env=environment())
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{path.name} wrote to stderr:\n{cell.source}\n\n{output.text}")
    notebook.cells = cells
    return notebook


def environment() -> dict[str, str]:
    """The kernel's: it imports this clone's gptjax, and compiles as a reader's does."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    places = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, places))}


def seconds_of(cell: Any) -> float:
    """How long a cell took."""
    times = cell.metadata.execution
    ended, began = (times[name] for name in ("shell.execute_reply", "iopub.status.busy"))
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def write(path: Path, notebook: Any) -> None:
    """Writes the .ipynb beside its source, without times, which differ at each execution."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    whole = path.with_suffix(".tmp")
    nbformat.write(notebook, whole)
    whole.replace(path.with_suffix(".ipynb"))


if __name__ == "__main__":
    sys.exit(main())
