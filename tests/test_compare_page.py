"""python -m compare: its input, its claims about its figures, and the page in docs/."""

import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from compare import __main__ as command
from compare import contestants, figures
from compare.contestants import CONTESTANTS
from compare.figures import Spread, order, show_order, spread
from compare.measuring import sameness
from compare.measuring.equality import STEPS
from compare.report import page, pictures

from made_up import results

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
    """The page is generated from the results alone, to the last character; no number is typed."""
    other = DOCS / page.OTHER_JSON
    newer = json.loads(other.read_text()) if other.is_file() else None
    assert (DOCS / page.PAGE).read_text() == page.page(RESULTS, newer)


def test_the_page_in_docs_is_of_a_whole_run_that_found_all_equal():
    assert RESULTS["command"].removesuffix(" --out docs") == "python -m compare"
    assert RESULTS["minutes"] < 12
    assert list(RESULTS["measures"]) == list(CONTESTANTS)
    proofs = {n: proof for n, proof in RESULTS["equality"].items() if "agrees" in proof}
    assert set(proofs) == set(CONTESTANTS) - {"torch-compile"}
    assert all(proof["agrees"] and len(proof["curve"]) == STEPS for proof in proofs.values())


def test_the_readme_promises_a_time_that_the_stored_run_kept():
    [line] = [x for x in (DOCS.parent / "README.md").read_text().splitlines() if "compare  " in x]
    [minutes, _] = re.findall(r"under (\d+)", line)
    assert RESULTS["minutes"] < int(minutes)


def test_the_page_in_docs_compares_the_same_arithmetic():
    """Plain is compared with plain, tuned with tuned; otherwise designs could not be compared."""
    for form, program in (("", "training"), ("", "sampling"), ("-tuned", "training")):
        found = [RESULTS["programs"][d + form][program] for d in ("linen", "nnx", "plain")]
        assert all(one["compiled"] == found[0]["compiled"] for one in found)
        assert sameness.flops(found[0]["compiled"]) > 0


def test_the_pages_pictures_are_there_and_small():
    for name in (page.MEASURED, page.LOSSES):
        assert f"({name})" in page.page(RESULTS)
        assert 0 < (DOCS / name).stat().st_size < 250_000  # thirteen measures of eight contestants


def test_without_pytorch_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(contestants.importlib.util, "find_spec", lambda _: None)
    names, missing = command.choose(",".join(CONTESTANTS))
    assert names == ["linen", "nnx", "plain", "linen-tuned", "nnx-tuned", "plain-tuned"]
    assert missing[0] == (
        'PyTorch is left out: torch is not installed (pip install -e ".[compare]")'
    )


def test_those_that_were_asked_for_take_part_and_no_others():
    assert command.choose("nnx,plain-tuned") == (["nnx", "plain-tuned"], [])


def texts(axes):
    return [text.get_text().strip() for text in axes.texts]


def test_a_picture_says_where_nothing_was_measured():
    run = results("linen", "nnx", "torch")
    del run["measures"]["nnx"]["step"]
    axes = Figure().subplots()
    names = list(run["measures"])
    pictures._bars(axes, "step", names, figures.spreads(run["measures"], "step"))
    assert texts(axes).count(figures.NOT_MEASURED) == 1
    [at] = [text.xy[1] for text in axes.texts if figures.NOT_MEASURED in text.get_text()]
    assert names[at] == "nnx"


def test_the_label_of_what_is_allowed_stands_clear_of_the_frame(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(pictures, "save_png", lambda figure, path, dpi: drawn.append(figure))
    pictures.draw_losses(tmp_path / "a.png", results())
    drawn[0].draw_without_rendering()
    _, right = drawn[0].axes
    [label] = [text for text in right.texts if text.get_text() == "allowed"]
    box, frame = label.get_window_extent(), right.get_window_extent()
    assert frame.x0 + 2 < box.x0
    assert box.x1 < frame.x1 - 2
    assert frame.y0 + 2 < box.y0
    assert box.y1 < frame.y1 - 2


def test_pictures_of_any_contestants_can_be_drawn(tmp_path):
    for names in (("plain",), ("nnx", "torch"), ()):
        run = results(*names)
        pictures.draw_measures(tmp_path / "a.png", run)
        pictures.draw_losses(tmp_path / "b.png", run)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_is_redrawn_from_stored_results(tmp_path):
    out = tmp_path / "there"
    assert command.main(["--redraw", "--out", str(out)]) == 2
    command.write(out, results("linen", "nnx"))
    (out / page.PAGE).unlink()
    assert command.main(["--redraw", "--out", str(out)]) == 0
    assert (out / page.PAGE).read_text() == page.page(results("linen", "nnx"))


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--only", "keras"], "keras"),
        (["--only", ","], "no contestant"),
        (["--preset", "tiny"], "tiny"),
        (["--preset", "bigram"], "not a GPT"),
        (["--fast"], "--fast"),
    ],
)
def test_wrong_input_is_one_line(argv, named, capsys):
    assert command.main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert named in said
    assert said.startswith("compare: error: ")
