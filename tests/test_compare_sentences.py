"""The page's sentences: with made-up numbers, it claims what they show, and no more."""

import pytest

from compare.measuring import host
from compare.report import designs, expectations, page, sides, takeaways

from made_up import ALL, around, ease, program, results

FUNCTIONAL, OBJECTS, NEITHER = sides.FUNCTIONAL, sides.OBJECTS, sides.NEITHER
STEP = "training step, one per dispatch"


def where(run, what):
    """Under which heading something stands."""
    said = sides.section(run).replace(what[0].upper() + what[1:], what)
    parts = said.split("### ")[1:4]
    [at] = [i for i, part in enumerate(parts) if what in part]
    return (FUNCTIONAL, OBJECTS, NEITHER)[at]


LEADING = {
    FUNCTIONAL: ("linen", "plain", "linen_tuned", "plain_tuned"),
    OBJECTS: ("nnx", "nnx_tuned", "torch", "torch_compile"),
}


@pytest.mark.parametrize("ahead", [FUNCTIONAL, OBJECTS])
def test_a_side_wins_where_all_of_it_is_ahead_of_all_of_the_other(ahead):
    [behind] = LEADING.keys() - {ahead}
    times = dict.fromkeys(LEADING[ahead], 50.0) | dict.fromkeys(LEADING[behind], 90.0)
    assert where(results(**times), STEP) == ahead


@pytest.mark.parametrize("one", LEADING[OBJECTS])
def test_one_that_is_not_behind_is_enough_for_no_win(one):
    times = dict.fromkeys(LEADING[FUNCTIONAL], 50.0) | dict.fromkeys(LEADING[OBJECTS], 90.0)
    for tied_or_ahead in (50.0, 20.0):
        assert where(results(**times | {one: tied_or_ahead}), STEP) == NEITHER


@pytest.mark.parametrize("one", LEADING[FUNCTIONAL])
def test_one_that_lags_is_enough_for_no_win(one):
    times = dict.fromkeys(LEADING[FUNCTIONAL], 50.0) | dict.fromkeys(LEADING[OBJECTS], 90.0)
    for tied_or_behind in (90.0, 120.0):
        assert where(results(**times | {one: tied_or_behind}), STEP) == NEITHER


def test_a_tie_of_all_is_no_win():
    assert where(results(), STEP) == NEITHER


def test_one_that_was_measured_once_could_stand_anywhere():
    times = dict.fromkeys(LEADING[FUNCTIONAL], 50.0) | dict.fromkeys(LEADING[OBJECTS], 90.0)
    run = results(**times)
    run["measures"]["torch-compile"]["step"] = [0.2]
    assert where(run, STEP) == NEITHER


def test_more_tokens_a_second_are_ahead():
    run = results("linen", "nnx")
    run["measures"]["linen"]["sample"] = around(2.0)
    assert where(run, "sampling with a cache:") == FUNCTIONAL
    run["measures"]["nnx"]["sample"] = around(4.0)
    assert where(run, "sampling with a cache:") == OBJECTS


def test_one_side_alone_wins_nothing():
    run = results("linen", "plain", linen=50, plain=90)
    assert where(run, STEP) == NEITHER


@pytest.mark.parametrize(
    ("silent", "side"),
    [
        ({"linen": 0, "nnx": 3, "torch": 3}, FUNCTIONAL),
        ({"linen": 3, "nnx": 0, "torch": 0}, OBJECTS),
        ({"linen": 1, "nnx": 3, "torch": 0}, NEITHER),
        ({"linen": 1, "nnx": 1, "torch": 1}, NEITHER),
    ],
)
def test_accidents_are_won_by_the_side_whose_designs_all_have_fewer(silent, side):
    run = results() | {"ease": ease("linen", "nnx", "torch", silent=silent)}
    assert where(run, "accidents that happen silently") == side


@pytest.mark.parametrize(
    ("lines", "side"),
    [
        ({"linen": 8, "nnx": 10, "torch": 20}, FUNCTIONAL),
        ({"linen": 9, "nnx": 10, "torch": 20}, NEITHER),
        ({"linen": 20, "nnx": 16, "torch": 10}, OBJECTS),
        ({"linen": 20, "nnx": 20, "torch": 10}, NEITHER),
    ],
)
def test_a_program_is_won_where_all_of_a_side_are_a_fifth_shorter(lines, side):
    run = results() | {"ease": ease("linen", "nnx", "torch", **lines)}
    assert where(run, "lines for training 8 seeds at once") == side


def test_designs_are_compared_only_where_their_products_are_the_same():
    run = results("linen", "nnx", linen=100, nnx=150)
    assert "Linen by a factor of 1.50" in designs.section(run)
    assert "Linen is faster by a factor of 1.50" in takeaways.takeaways(run)
    run["programs"]["nnx"]["training"] = program({"1x12x128x128": 5})
    assert designs.claim(run, "step", "linen", "nnx") == "products differ"
    assert "their products differ" in takeaways.takeaways(run)
    assert "**no**: +1 of 1x12x128x128" in page.page(run)
    del run["programs"]["nnx"]
    assert designs.claim(run, "step", "linen", "nnx") == "products not counted"
    assert "their products were not counted" in takeaways.takeaways(run)
    for said in (designs.section(run), takeaways.takeaways(run).splitlines()[0]):
        assert "factor" not in said


def test_the_first_sentence_is_about_who_is_ahead_whoever_it_is():
    first = takeaways.takeaways(results(linen=150, nnx=100)).splitlines()[0]
    assert "NNX is faster by a factor of 1.50" in first
    assert first.count("the order is unclear") == 1  # the tuned ones
    tie = takeaways.takeaways(results()).splitlines()[0]
    assert "faster" not in tie
    assert tie.count("the order is unclear") == 2


def test_the_hosts_cost_is_told_beside_the_presets_step():
    run = results(linen=100, nnx=100, plain=100)
    for name, ms in {"plain": 0.2, "linen": 0.4, "nnx": 1.2}.items():
        run["host"][host.TINY][name]["step"] = around(ms / 1e3)
    said = takeaways.takeaways(run).splitlines()[1]
    assert "plain JAX, then Linen, then NNX" in said
    assert "1.00 % of NNX's step at `made-up`" in said
    run["host"][host.TINY] = {"nnx": run["host"][host.TINY]["nnx"]}
    said = takeaways.takeaways(run).splitlines()[1]
    assert "did not measure two designs" in said
    assert "ms" not in said


def test_tuning_can_be_slower_and_designs_can_differ_by_more():
    run = results(linen=200, linen_tuned=100, nnx=100, nnx_tuned=150, plain=100, plain_tuned=100)
    said = takeaways.takeaways(run).splitlines()[2]
    assert "Linen: 2.00 times faster" in said
    assert "NNX: 1.50 times slower" in said
    assert "plain JAX: unclear" in said
    assert "with the same products, the largest factor is 2.00" in said
    run["programs"]["linen"]["training"] = program({"1x12x128x128": 5})
    said = takeaways.takeaways(run).splitlines()[2]
    assert "with the same products, the largest factor is 1.50" in said
    none = takeaways.takeaways(results("linen", "nnx")).splitlines()[2]
    assert "did not measure any design both plain and tuned" in none


def test_pytorch_is_told_by_the_order_and_left_out_where_it_is_missing():
    said = takeaways.takeaways(results(torch=50)).splitlines()[3]
    assert "the order is PyTorch, then" in said
    tie = takeaways.takeaways(results()).splitlines()[3]
    assert "the order is unclear" in tie
    without = takeaways.takeaways(results("linen", "nnx")).splitlines()[3]
    assert "did not measure PyTorch beside JAX" in without
    assert " ms" not in without


def expectation(run, expected):
    [found] = [row for row in expectations.expectations(run) if row[0] == expected]
    return found[-1]


def test_an_expectation_holds_fails_or_cannot_be_told():
    expected = "`torch.compile` makes the step faster"
    assert expectation(results(torch=100, torch_compile=50), expected) == expectations.HELD
    assert expectation(results(torch=50, torch_compile=100), expected) == expectations.FAILED
    assert expectation(results(torch=100, torch_compile=100), expected) == expectations.OPEN
    assert expectation(results("linen", "torch"), expected) == expectations.OPEN


@pytest.mark.parametrize(
    "names", [(name,) for name in ALL] + [("nnx", "torch"), ("plain", "plain-tuned")], ids="+".join
)
def test_any_of_them_alone_or_in_pairs_make_a_page(names):
    run = results(*names)
    said = page.page(run)
    assert len(takeaways.takeaways(run).splitlines()) == 5
    for other in set(ALL) - set(names) - {"linen"}:
        assert f"| {page.title(other)} |" not in said


def test_a_run_on_another_release_has_a_table_of_its_own():
    other = results("linen", linen=123.4)
    other["machine"]["python"] = "3.99"
    assert "3.99" not in page.page(results())
    said = page.page(results(), other).split("## On another release")[1].split("##")[0]
    assert "Python 3.99" in said
    assert f"| {STEP}, ms | 123 |" in said
