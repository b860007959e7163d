"""Filters of the next token's distribution, each against a case worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.inference.sampling import Sampling, filter_logits, penalize


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


def test_top_k_keeps_exactly_k_of_equal_tokens():
    assert sum(kept([0.25] * 4, top_k=2)) == 2
    assert kept([0.2, 0.5, 0.3], top_k=2) == [False, True, True]


def test_top_p_counts_what_top_k_left():
    """Of 0.5, 0.3, 0.2, top_k 2 leaves 0.625 and 0.375: p = 0.6 is then reached by one."""
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
    "settings",
    [
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.1},
        {"top_k": 9, "top_p": 0.8, "min_p": 0.05, "temperature": 0.7, "repetition_penalty": 1.3},
        {"temperature": 1.8, "top_p": 0.95, "repetition_penalty": 0.8},
    ],
)
def test_the_order_is_hugging_faces(settings):
    """Against transformers' own processors, in the order in which its `generate` builds them."""
    torch = pytest.importorskip("torch", reason="needs the extra `compare`")
    from transformers.generation import logits_process as hf

    generator = np.random.default_rng(5)
    logits = 3 * generator.standard_normal((4, 40)).astype(np.float32)
    text = generator.integers(0, 40, (4, 12))
    processors = hf.LogitsProcessorList(
        make(settings[name])
        for name, make in {
            "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor,
            "temperature": hf.TemperatureLogitsWarper,
            "top_k": hf.TopKLogitsWarper,
            "top_p": hf.TopPLogitsWarper,
            "min_p": hf.MinPLogitsWarper,
        }.items()
        if name in settings
    )
    expected = processors(torch.tensor(text), torch.tensor(logits.copy())).numpy()
    used = np.zeros((4, 40), bool)
    np.put_along_axis(used, text, True, axis=1)
    sampling = Sampling(**settings).traced()
    found = np.asarray(
        filter_logits(penalize(jnp.array(logits), jnp.array(used), sampling), sampling)
    )
    assert (np.isfinite(found) == np.isfinite(expected)).all()
    kept = np.isfinite(found)
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-5)
