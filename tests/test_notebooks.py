"""The notebooks: each source equals its .ipynb, and every notebook executes."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="the notebooks need the extra `notebooks`")
pytest.importorskip("nbclient", reason="the notebooks need the extra `notebooks`")

from notebooks import execute

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"

NAMES = [path.stem for path in execute.SOURCES]
MEGABYTE = 1_000_000


def stored(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_of_a_notebook_have_the_same_cells(name):
    source = execute.read(FOLDER / f"{name}.md")
    cells = [(cell.cell_type, cell.source) for cell in source.cells]
    notebook = stored(name)
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == cells


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_notebook_was_executed_from_top_to_bottom(name):
    """The cells are numbered in order, none failed, and the file is small."""
    code = [cell for cell in stored(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MEGABYTE


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_pictures_and_three_to_six_exercises_with_solutions(name):
    outputs = [o for cell in stored(name)["cells"] for o in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    source = execute.read(FOLDER / f"{name}.md")
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    exercises = re.findall(r"^\*\*Exercise \d\.", text, re.MULTILINE)
    assert 3 <= len(exercises) <= 6
    assert len(execute.A_SOLUTION.findall(text)) == len(exercises)
    assert len(execute.solutions(source)) == len(exercises)


@pytest.mark.parametrize("path", [*execute.SOURCES, FOLDER / "README.md"], ids=lambda p: p.stem)
def test_every_link_of_a_notebook_leads_to_a_file(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (FOLDER / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_executes(name):
    if not (ROOT / "data" / "shakespeare.txt").exists():
        pytest.skip("data/prepare.py fetches the text that the notebooks read")
    execute.executed(FOLDER / f"{name}.md")
