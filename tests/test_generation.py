import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.errors import InputError
from gptjax.generation import filter_logits, generate, make_sampling
from gptjax.model import GPT, forward
from gptjax.training import init_params

from conftest import tiny_config

KEY = jax.random.key(3)
MODEL = GPT(tiny_config(n_layer=2).model)
# Larger than at initialisation, so that the distribution is far from flat.
PARAMS = jax.tree.map(lambda x: 8 * x, init_params(MODEL, jax.random.key(0)))
PROMPT = jax.random.randint(jax.random.key(1), (2, 3), 0, 11)


def naive(prompt, n, choose):
    """The lecture's generate: crop to the last block_size tokens, run it all, take the last."""
    tokens = jnp.asarray(prompt)
    for _ in range(n):
        logits = forward(MODEL, PARAMS, tokens[:, -8:])[:, -1]
        tokens = jnp.concatenate([tokens, choose(logits, tokens.shape[1])[:, None]], axis=1)
    return tokens


def sampled(logits, position):
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, row), position) for row in range(2)]
    rows = [jax.random.categorical(k, x) for k, x in zip(keys, logits, strict=True)]
    return jnp.stack(rows)


def test_greedy_equals_the_naive_loop_past_the_block():
    expected = naive(PROMPT, 20, lambda logits, _: logits.argmax(-1))
    y = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=20, temperature=0)
    assert y.shape == (2, 23)
    assert y.dtype == jnp.int32
    assert (y == expected).all()


def test_sampling_equals_the_naive_loop_past_the_block():
    y = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=20)
    assert (y == naive(PROMPT, 20, sampled)).all()
    assert (
        y[:, 3:] != generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=20, temperature=0)[:, 3:]
    ).any()


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
def test_prompts_of_any_length(length):
    prompt = jax.random.randint(jax.random.key(2), (2, length), 0, 11)
    expected = naive(prompt, 3, lambda logits, _: logits.argmax(-1))
    assert (generate(MODEL, PARAMS, prompt, KEY, max_new_tokens=3, temperature=0) == expected).all()


def test_a_row_does_not_depend_on_its_batch():
    both = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=12)
    alone = generate(MODEL, PARAMS, PROMPT[:1], KEY, max_new_tokens=12)
    assert (both[:1] == alone).all()
    twins = generate(MODEL, PARAMS, PROMPT[jnp.array([0, 0])], KEY, max_new_tokens=12)
    assert (twins[0] != twins[1]).any(), "two rows of one prompt must not be one sample twice"


def test_more_tokens_continue_fewer():
    few = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=5)
    many = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=90)
    assert (many[:, :8] == few).all()


def test_same_key_same_text_and_another_key_another():
    one, again = (generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=9) for _ in range(2))
    other = generate(MODEL, PARAMS, PROMPT, jax.random.key(4), max_new_tokens=9)
    assert (one == again).all()
    assert (one != other).any()


def test_top_k_of_one_and_a_tiny_top_p_are_greedy():
    greedy = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=12, temperature=0)
    for filters in ({"top_k": 1}, {"top_p": 1e-6}, {"top_k": 1, "top_p": 0.5}):
        y = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=12, temperature=2.0, **filters)
        assert (y == greedy).all()


def test_filters_that_keep_everything_change_nothing():
    free = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=12)
    for filters in ({"top_k": 11}, {"top_k": 10**30}, {"top_p": 1.0}):
        y = generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=12, **filters)
        assert (y == free).all()


def kept(probabilities, **settings):
    sampling = make_sampling(**{"temperature": 1.0, "top_k": None, "top_p": None} | settings)
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


def test_draws_follow_the_distribution():
    """2,000 draws of one token from the model's own distribution, each row with its key."""
    prompt = jnp.tile(PROMPT[:1], (2000, 1))
    y = generate(MODEL, PARAMS, prompt, KEY, max_new_tokens=1)[:, -1]
    expected = jax.nn.softmax(forward(MODEL, PARAMS, PROMPT[:1])[0, -1])
    found = np.bincount(y, minlength=11) / 2000
    # Four standard deviations of a proportion, sqrt(0.25 / 2000) at most.
    np.testing.assert_allclose(found, expected, atol=4 * 0.0112)


def test_settings_do_not_recompile(count_compiles):
    generate(MODEL, PARAMS, PROMPT, KEY, max_new_tokens=12)
    with count_compiles() as compiled:
        generate(
            MODEL,
            PARAMS,
            PROMPT[:, :2],
            jax.random.key(9),
            max_new_tokens=20,
            temperature=0.5,
            top_k=3,
            top_p=0.9,
        )
    assert [name for name in compiled if "_generate" in name] == []


def test_works_with_any_module_of_the_same_call():
    deeper = dataclasses.replace(MODEL.config, n_layer=1, block_size=5)
    model = GPT(deeper)
    y = generate(model, init_params(model, KEY), PROMPT, KEY, max_new_tokens=9)
    assert y.shape == (2, 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature (-0.1) must be at least 0"),
        ({"temperature": float("nan")}, "temperature (nan)"),
        ({"top_k": 0}, "top_k (0) must be at least 1"),
        ({"top_p": 0.0}, "top_p (0.0) must be above 0"),
        ({"top_p": 1.5}, "top_p (1.5)"),
        ({"max_new_tokens": 0}, "max_new_tokens (0) must be at least 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(InputError) as caught:
        generate(MODEL, PARAMS, PROMPT, KEY, **{"max_new_tokens": 1} | settings)
    assert message in str(caught.value)


def test_a_prompt_needs_a_token():
    with pytest.raises(InputError, match="T at least 1"):
        generate(MODEL, PARAMS, np.zeros((1, 0), np.int32), KEY, max_new_tokens=1)
