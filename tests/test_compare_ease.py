"""The short programs of compare/ease/: in every design, the results that they claim are true."""

import importlib.util

import jax
import pytest

from compare import ease
from compare.measuring import measurement
from gptjax.loss import cross_entropy
from gptjax.model import forward

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
    assert all(one["lines"] > 1 and one["says"] for one in found["designs"].values())
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
    # AdamW divides a gradient by its own size, so where one is almost 0, rounding decides which way
    # the parameter goes: Linen's losses begin 1e-7 apart, and after 20 steps some are 2e-4 apart.
    # Losses of two different seeds are 0.2 apart.
    found = facts("seeds", problem)
    assert all(one["difference"] < 1e-3 for one in found.values())


@pytest.mark.slow
def test_the_mean_of_the_examples_gradients_is_the_batchs(problem):
    assert all(one["difference"] < 1e-6 for one in facts("per_example", problem).values())


@pytest.mark.slow
def test_only_functions_have_no_silent_accident(problem):
    found = facts("hidden", problem)
    silent = {design: "happens silently" in one.values() for design, one in found.items()}
    assert silent == {design: design != "linen" for design in found}


@pytest.mark.slow
def test_surgery_leaves_the_first_block_alone(problem):
    assert all(one["difference"] < 1e-5 for one in facts("surgery", problem).values())


@pytest.mark.slow
def test_mixed_precision_rounds_products_and_keeps_weights_and_gradients(problem):
    for one in facts("mixed", problem).values():
        assert one["float32"]
        assert 1e-4 < one["moved"] < 0.05


@pytest.mark.slow
def test_a_shared_block_is_trained_once_with_both_gradients(problem):
    found = facts("sharing", problem)
    for one in found.values():
        assert one["numbers"] == found["linen"]["numbers"]
        assert one["norm"] == pytest.approx(found["linen"]["norm"], rel=1e-4)


@pytest.mark.slow
def test_two_optimizers_train_alike_in_all(problem):
    found = facts("two_optimizers", problem)
    assert found["linen"]["losses"][-1] < found["linen"]["losses"][0]
    for one in found.values():
        assert one["losses"] == pytest.approx(found["linen"]["losses"], rel=1e-3)


def test_every_design_notices_a_wrong_shape_before_it_computes(problem):
    found = facts("wrong_shape", problem)
    assert found["linen"]["named"]
    assert all(one["when"] != "never" for one in found.values())


def test_lines_are_counted_by_the_rule_that_the_page_names():
    def program():
        """Says so.

        At length.
        """
        import os  # not counted

        # A comment.
        value = [
            1,
            2,
        ]
        if value:
            return os
        return 1

    assert ease.count_lines(program) == 4
    assert "logical lines" in ease.RULE


def test_injecting_is_counted_with_what_it_needs():
    assert ease.injection_lines()["linen"] == 1
    assert set(ease.injection_lines()) == {"linen", "nnx", "plain"}


def test_turns_start_with_another_one_each_time():
    assert list(measurement.turn(["a", "b", "c"], 0)) == ["a", "b", "c"]
    assert list(measurement.turn(["a", "b", "c"], 4)) == ["b", "c", "a"]


@pytest.mark.slow
def test_eight_devices_make_the_update_of_one(problem):
    logits = forward(problem.linen(), problem.params, problem.x[0])
    before = float(cross_entropy(logits, problem.y[0]))
    found = facts("devices", problem)
    for one in found.values():
        assert one["losses"][0] == pytest.approx(before, abs=1e-5)
        assert one["losses"][1] == pytest.approx(found["linen"]["losses"][1], abs=1e-5)
        assert one["losses"][1] < before - 0.1
        assert one["here"] < one["whole"] / 7.5
