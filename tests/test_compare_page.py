"""python -m compare: its input, what it may say of its figures, and the page in docs/."""

import copy
import json
from pathlib import Path

import pytest

from compare import __main__ as command
from compare import contestants, figures, page, pictures, reading
from compare.contestants import CONTESTANTS
from compare.figures import Spread, order, show_order, spread

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = json.loads((DOCS / page.JSON).read_text())


def test_there_is_an_order_only_where_spreads_do_not_overlap():
    apart = {"linen": Spread(1, 0.9, 1.1, 5), "torch": Spread(2, 1.9, 2.1, 5)}
    assert order(apart) == [["linen"], ["torch"]]
    assert order(apart, more_is_better=True) == [["torch"], ["linen"]]
    touching = apart | {"nnx": Spread(1.5, 1.0, 1.95, 5)}
    assert order(touching) == [["linen", "nnx", "torch"]]
    assert show_order(order(touching)) == "no order: the spreads overlap"


def test_a_single_measurement_has_no_place():
    once = {"linen": spread([1.0]), "torch": spread([2.0])}
    assert order(once) == []
    assert show_order([]) == "no order"


def test_the_spread_is_the_middle_half_and_of_few_all():
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert spread([3.0, 1.0, 2.0], scale=10) == Spread(20.0, 10.0, 30.0, 3)


def test_figures_have_three_digits():
    assert [figures.show(v) for v in (0, 0.01234, 1.234, 12.34, 123.4, 12345.6)] == [
        "0", "0.0123", "1.23", "12.3", "123", "12,346",
    ]  # fmt: skip


def test_the_page_in_docs_is_what_the_stored_results_say():
    """No number of it was typed: the results alone make it, down to the last character."""
    assert (DOCS / page.PAGE).read_text() == page.page(RESULTS)


def test_the_page_in_docs_is_of_a_whole_run_that_found_all_equal():
    assert RESULTS["command"] == "python -m compare"
    assert RESULTS["minutes"] < 10
    assert list(RESULTS["measures"]) == list(CONTESTANTS)
    proofs = {n: proof for n, proof in RESULTS["equality"].items() if "agrees" in proof}
    assert set(proofs) == {"linen", "nnx", "plain", "torch"}
    assert all(proof["agrees"] and len(proof["curve"]) == 100 for proof in proofs.values())


def test_the_pages_pictures_are_there_and_small():
    for name in (page.MEASURED, page.LOSSES):
        assert f"({name})" in page.page(RESULTS)
        assert 0 < (DOCS / name).stat().st_size < 200_000


def read(**milliseconds):
    """Where the training step stands in the reading, had each contestant taken so long."""
    results = copy.deepcopy(RESULTS)
    for name, each in milliseconds.items():
        results["measures"][name.replace("_", "-")]["step"] = [
            (each + i / 10) / 1e3 for i in range(9)
        ]
    said = reading.reading(results)
    parts = {part.split("\n")[0]: part for part in said.split("### ")[1:4]}
    [where] = [title for title, part in parts.items() if "Training step" in part]
    return where


FUNCTIONAL, OBJECTS, NEITHER = (
    "Where functional wins",
    "Where objects win",
    "Where neither does",
)


@pytest.mark.parametrize(
    ("milliseconds", "where"),
    [
        ({"linen": 50, "plain": 60, "nnx": 70, "torch": 90, "torch_compile": 99}, FUNCTIONAL),
        ({"plain": 50, "linen": 60, "nnx": 70, "torch": 90, "torch_compile": 99}, FUNCTIONAL),
        ({"torch": 50, "torch_compile": 60, "nnx": 70, "linen": 90, "plain": 99}, OBJECTS),
        ({"linen": 50, "nnx": 60, "plain": 70, "torch": 90, "torch_compile": 99}, NEITHER),
        ({"torch": 50, "linen": 60, "plain": 70, "nnx": 90, "torch_compile": 99}, NEITHER),
        ({"linen": 50, "plain": 70, "nnx": 70, "torch": 90, "torch_compile": 99}, NEITHER),
        ({"linen": 50, "plain": 50, "nnx": 50, "torch": 50, "torch_compile": 50}, NEITHER),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_side_wins_only_where_all_of_it_is_ahead(milliseconds, where):
    assert read(**milliseconds) == where


def test_the_reading_says_what_differs_between_linen_and_nnx():
    said = reading.reading(RESULTS).split("### Linen against NNX")[1].split("###")[0]
    assert "not the same arithmetic" in said
    assert "same arithmetic; what is left is the design" not in page.page(RESULTS)


def test_without_pytorch_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(contestants.importlib.util, "find_spec", lambda _: None)
    names, missing = command.choose(",".join(CONTESTANTS), quick=False)
    assert names == ["linen", "nnx", "plain"]
    assert missing[0] == (
        'PyTorch is left out: torch is not installed (pip install -e ".[compare]")'
    )


def test_a_page_without_pytorch_can_be_written(tmp_path):
    few = copy.deepcopy(RESULTS)
    for name in ("torch", "torch-compile"):
        few["measures"].pop(name)
        few["processes"].pop(name)
        few["equality"].pop(name, None)
    for topic in few["ease"].values():
        topic["designs"].pop("torch", None)
    few["missing"] = ["PyTorch is left out: torch is not installed (pip install ...)"]
    assert "PyTorch is left out" in page.page(few)
    assert "cannot be told" in page.page(few)
    pictures.draw_measures(tmp_path / "a.png", few)
    pictures.draw_losses(tmp_path / "b.png", few)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--only", "keras"], "keras"),
        (["--preset", "tiny"], "tiny"),
        (["--preset", "bigram"], "no GPT"),
        (["--fast"], "--fast"),
    ],
)
def test_wrong_input_is_one_line(argv, named, capsys):
    assert command.main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert named in said
    assert said.startswith("compare: error: ")
