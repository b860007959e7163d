"""docs/functional.md: both sides of each pair run, and give equal results where they must."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "functional.md").read_text()
BLOCKS = re.findall(r"```python( torch)?\n(.*?)```", PAGE, re.DOTALL)
# By section: the results that must be equal, by the name that both sides use.
PAIRS = {
    "A module, the whole of it": ("result",),
    "The model and its weights": ("count",),
    "Forward": ("logits",),
    "The loss and its gradient": ("loss", "gradient"),
    "The optimizer": ("weight",),
    "A step, compiled": ("losses",),
    "Generating": ("tokens",),
    "Looking inside": ("shape",),
}


@pytest.fixture(autouse=True)
def broadcasting():
    """The page is for a reader's session, which has JAX's defaults."""
    import jax

    with jax.numpy_rank_promotion("allow"):
        yield


def run(section, torch_side, names, other):
    """Runs one side's blocks of a section; `entries` are the weights that PyTorch is given."""
    for tag, block in re.findall(r"```python( torch)?\n(.*?)```", section, re.DOTALL):
        if bool(tag) == torch_side:
            if "entries" in block and torch_side:
                names["entries"] = other["entries"]
            title = section.splitlines()[0].strip("# ")
            exec(compile(block, f"docs/functional.md, {title}", "exec"), names)


@pytest.mark.slow
def test_each_pair_runs_and_agrees():
    """Without PyTorch, only this project's side of each pair runs."""
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    ours: dict = {"__name__": "functional"}
    theirs: dict = {"__name__": "functional"}
    for section in PAGE.split("\n## "):
        run(section, False, ours, {})
        if torch is None:
            continue
        run(section, True, theirs, ours)
        for name in PAIRS.get(section.splitlines()[0], ()):
            left, right = ours[name], theirs[name]
            if isinstance(right, torch.Tensor):
                right = right.detach().numpy()
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5, err_msg=name)
    assert ours["losses"][-1] < ours["losses"][0]


def test_every_section_has_both_sides():
    sections = PAGE.split("\n## ")[1:]
    assert [s.splitlines()[0] for s in sections if s.splitlines()[0] in PAIRS] == list(PAIRS)
    for section in sections:
        tags = {tag for tag, _ in re.findall(r"```python( torch)?\n(.*?)```", section, re.DOTALL)}
        assert tags == {"", " torch"}, section.splitlines()[0]


def test_every_link_and_file_is_there():
    for name in re.findall(r"`(gptjax/\S+?\.py)`", PAGE):
        assert (DOCS.parent / name).is_file(), name
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    anchors = {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        assert target[1:] in anchors if target[0] == "#" else (DOCS / target).is_file(), target
