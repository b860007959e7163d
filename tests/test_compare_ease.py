"""The short programs of compare/ease/: what they claim came out is so, in every design."""

import importlib.util

import jax
import pytest

from compare import ease, measure

DESIGNS = [d for d in ease.DESIGNS if d != "torch" or importlib.util.find_spec("torch")]


@pytest.fixture(scope="module")
def problem():
    return ease.small_problem()


@pytest.fixture(autouse=True)
def surroundings():
    """JAX's default broadcasting, and one thread of PyTorch."""
    if "torch" in DESIGNS:
        import torch

        torch.set_num_threads(1)
    with jax.numpy_rank_promotion("allow"):
        yield


def facts(topic, problem, designs=DESIGNS):
    found = ease.run(topic, designs, problem)
    assert found["question"].endswith((":", "?", "."))
    assert all(one["lines"] > 3 and one["says"] for one in found["designs"].values())
    return {design: one["facts"] for design, one in found["designs"].items()}


@pytest.mark.slow
def test_all_see_the_same_activations(problem):
    found = facts("activations", problem)
    for one in found.values():
        assert one["shape"] == [8, 16, 32]
        assert one["norm"] == pytest.approx(found["linen"]["norm"], rel=1e-5)


def test_all_replace_the_same_layer(problem):
    found = facts("replace", problem)
    assert found["linen"]["moved"] > 1e-3
    for one in found.values():
        assert one["moved"] == pytest.approx(found["linen"]["moved"], rel=1e-4)


@pytest.mark.slow
def test_a_breakpoint_shows_numbers_where_nothing_is_compiled(problem):
    for design, one in facts("debugger", problem).items():
        assert one["numbers"]
        assert one["as_it_trains"] == (design == "torch")
        assert one["frames"] > 1


@pytest.mark.slow
def test_what_is_frozen_stays(problem):
    assert all(one["holds"] for one in facts("freeze", problem).values())


@pytest.mark.slow
def test_all_resume_bit_for_bit_and_none_without_its_hidden_part(problem):
    for one in facts("resume", problem).values():
        assert one == {"same": True, "same_without": False}


@pytest.mark.slow
def test_seeds_at_once_are_the_seeds_one_by_one(problem):
    found = facts("seeds", problem)
    assert all(one["difference"] < 1e-4 for one in found.values())


@pytest.mark.slow
def test_the_mean_of_the_examples_gradients_is_the_batchs(problem):
    assert all(one["difference"] < 1e-6 for one in facts("per_example", problem).values())


@pytest.mark.slow
def test_only_functions_have_no_accident_in_silence(problem):
    found = facts("hidden", problem)
    silent = {design: "happens in silence" in one.values() for design, one in found.items()}
    assert silent == {design: design != "linen" for design in found}


def test_lines_of_docstrings_and_comments_do_not_count():
    def program():
        """Says so.

        At length.
        """
        # A comment.
        return 1

    assert ease.count_lines(program) == 1


def test_turns_start_with_another_one_each_time():
    assert list(measure.turn(["a", "b", "c"], 0)) == ["a", "b", "c"]
    assert list(measure.turn(["a", "b", "c"], 4)) == ["b", "c", "a"]
