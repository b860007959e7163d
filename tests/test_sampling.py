"""Filters of the next token's distribution, each against a case computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gptjax.inference.sampling import MOST_PENALTY, Sampling, filter_logits, penalize, sample_token


def kept(probabilities, **settings):
    sampling = Sampling(**settings).traced()
    logits = filter_logits(jnp.log(jnp.array([probabilities])), sampling)[0]
    return np.isfinite(logits).tolist()


def test_top_p_by_hand():
    """The fewest tokens that together reach p: 0.5 alone for p = 0.5, two for a little more."""
    probabilities = [0.2, 0.5, 0.3]
    assert kept(probabilities, top_p=0.49) == [False, True, False]
    assert kept(probabilities, top_p=0.5) == [False, True, False]
    assert kept(probabilities, top_p=0.51) == [False, True, True]
    assert kept(probabilities, top_p=0.81) == [True, True, True]
    assert kept(probabilities, top_p=1.0) == [True, True, True]


def test_a_top_p_of_one_keeps_all_even_where_probabilities_add_up_to_more():
    """By rounding, the cumulative probability before one of the last tokens is 1.0000002 here."""
    logits = 3 * np.random.default_rng(0).standard_normal((20, 1000)).astype(np.float32)
    found = filter_logits(jnp.array(logits), Sampling(top_k=999).traced())
    assert (np.isfinite(found).sum(axis=1) == 999).all()


def test_top_k_keeps_exactly_k_of_equal_tokens():
    assert sum(kept([0.25] * 4, top_k=2)) == 2
    assert kept([0.2, 0.5, 0.3], top_k=2) == [False, True, True]


def test_top_p_counts_what_top_k_left():
    """From 0.5, 0.3, 0.2, top_k 2 leaves 0.625 and 0.375: one token then reaches p = 0.6."""
    assert kept([0.2, 0.5, 0.3], top_k=2, top_p=0.6) == [False, True, False]


def test_temperature_comes_before_top_p():
    """Squared by temperature 0.5, 0.5, 0.3, 0.2 become 0.66, 0.24, 0.1."""
    assert kept([0.2, 0.5, 0.3], top_p=0.65, temperature=0.5) == [False, True, False]
    assert kept([0.2, 0.5, 0.3], top_p=0.65, temperature=1.0) == [False, True, True]


def test_min_p_by_hand():
    """Of 0.5, 0.3, 0.15, 0.05, those at least 0.5 times as probable as 0.5 are two."""
    probabilities = [0.3, 0.5, 0.05, 0.15]
    assert kept(probabilities, min_p=0.5) == [True, True, False, False]
    assert kept(probabilities, min_p=0.29) == [True, True, False, True]
    assert kept(probabilities, min_p=1.0) == [False, True, False, False]
    assert kept(probabilities, min_p=0.0) == [True] * 4


def test_min_p_comes_after_temperature():
    """Squared, 0.3 over 0.5 is 0.36."""
    assert kept([0.3, 0.5, 0.2], min_p=0.5, temperature=0.5) == [False, True, False]


def test_the_penalty_by_hand():
    logits = jnp.array([[2.0, -2.0, 2.0, -2.0, 0.0]])
    used = jnp.array([[True, True, False, False, True]])
    found = penalize(logits, used, Sampling(repetition_penalty=4.0).traced())
    assert found.tolist() == [[0.5, -8.0, 2.0, -2.0, 0.0]]
    assert (penalize(logits, used, Sampling().traced()) == logits).all()


@pytest.mark.parametrize(
    "chosen",
    [
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.1},
        {"top_k": 9, "top_p": 0.8, "min_p": 0.05, "temperature": 0.7, "repetition_penalty": 1.3},
        {"temperature": 1.8, "top_p": 0.95, "repetition_penalty": 0.8},
    ],
)
def test_the_order_is_hugging_faces(chosen):
    """Against transformers' own processors, in the order in which its `generate` builds them."""
    torch = pytest.importorskip("torch", reason="needs the extra `compare`")
    from transformers.generation import logits_process as hf

    generator = np.random.default_rng(5)
    logits = 3 * generator.standard_normal((4, 40)).astype(np.float32)
    text = generator.integers(0, 40, (4, 12))
    processors = hf.LogitsProcessorList(
        make(chosen[name])
        for name, make in {
            "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor,
            "temperature": hf.TemperatureLogitsWarper,
            "top_k": hf.TopKLogitsWarper,
            "top_p": hf.TopPLogitsWarper,
            "min_p": hf.MinPLogitsWarper,
        }.items()
        if name in chosen
    )
    expected = processors(torch.tensor(text), torch.tensor(logits.copy())).numpy()
    used = np.zeros((4, 40), bool)
    np.put_along_axis(used, text, True, axis=1)
    sampling = Sampling(**chosen).traced()
    found = np.asarray(
        filter_logits(penalize(jnp.array(logits), jnp.array(used), sampling), sampling)
    )
    assert (np.isfinite(found) == np.isfinite(expected)).all()
    expected -= expected.max(axis=1, keepdims=True)
    kept = np.isfinite(found)
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-5, atol=1e-5)


@jax.jit
def filtered_and_drawn(logits_BV, used_BV, sampling):
    penalized_BV = penalize(logits_BV, used_BV, sampling)
    keys_B = jax.random.split(jax.random.key(0), len(logits_BV))
    return filter_logits(penalized_BV, sampling), sample_token(penalized_BV, keys_B, sampling)


V = 8
# Every order of magnitude of a positive float32 is equally likely.
positive = st.builds(
    lambda mantissa, exponent: float(np.float32(np.ldexp(mantissa, exponent))),
    st.floats(0.5, 1, exclude_max=True, width=32),  # a float64 could round up to infinity
    st.integers(-148, 128),
)
sizes = st.sampled_from([1e-45, 1e-38, 1e-20, 1.0, 1e20, 3.3e38]) | positive
shares = st.sampled_from([1e-45, 1e-30, 0.3, 1 - 2**-24, 1.0])
# Multiples of 1/8: two of them are equal or differ by much more than rounding.
eighths = st.lists(st.integers(-200, 200).map(lambda n: n / 8), min_size=V, max_size=V)


def reference(logits, used, how):
    """The same in float64; skips an example that rounding alone decides."""
    x, penalty = np.float64(logits), np.clip(how.repetition_penalty, 1 / MOST_PENALTY, MOST_PENALTY)
    x = np.where(used, np.where(x > 0, x / penalty, x * penalty), x)
    order = np.argsort(-x, kind="stable")
    gaps = -np.diff(x[order])
    assume(((gaps == 0) | (gaps > 1e-4 * np.abs(x[order][:-1]))).all())
    x = (x - x.max()) / (how.temperature or 1)
    stay = np.arange(V) < (how.top_k or V)
    ranked = np.where(stay, x[order], -np.inf)
    probability = np.exp(ranked) / np.exp(ranked).sum()
    before = np.cumsum(probability) - probability
    top_p, min_p = how.top_p or 1, how.min_p or 0
    all_of_them = top_p > 0.999
    assume(all_of_them or (np.abs(before - top_p) > 1e-5)[stay].all())
    if min_p:
        above = (ranked - np.log(min_p))[stay]
        assume(((above == 0) | (np.abs(above) > 1e-3)).all())
    stay &= ((before < top_p) | all_of_them) & (probability >= min_p * probability[0])
    stay[0] = True
    return np.where(stay[np.argsort(order)], x, -np.inf)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    logits=eighths,
    used=st.lists(st.booleans(), min_size=V, max_size=V),
    temperature=sizes,
    repetition_penalty=sizes,
    top_k=st.sampled_from([None, 1, 3, 10**30]),
    top_p=st.none() | shares,
    min_p=st.none() | shares,
)
def test_every_setting_is_what_float64_makes_of_it(logits, used, **chosen):
    """From the smallest float32 to the largest: greedy or uniform in the limit, and never a NaN.

    Logits over a temperature of 1e-38 were infinite, several of them, and the first was drawn.
    """
    how, arrays = Sampling(**chosen), (np.float32([logits]), np.array([used]))
    found, drawn = (np.asarray(x)[0] for x in filtered_and_drawn(*arrays, how.traced()))
    expected = reference(logits, np.array(used), how)
    assert found.max() == 0, "the likeliest token stays, and no number is a NaN"
    of_found, of_expected = (np.exp(x) / np.exp(x).sum() for x in (np.float64(found), expected))
    np.testing.assert_allclose(of_found, of_expected, atol=1e-3)
    assert of_expected[drawn] > 0
