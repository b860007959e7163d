import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.errors import InputError
from gptjax.inference.decoding import Drawn
from gptjax.inference.generation import WINDOWS, generate, stream
from gptjax.inference.sampling import Sampling
from gptjax.model import GPT, forward
from gptjax.rungs import RUNGS

from conftest import init, run_model, tiny_config

KEY = jax.random.key(3)
MODEL = GPT(tiny_config(n_layer=2).model)
# Larger than at initialisation, so that the distribution is far from flat.
PARAMS = jax.tree.map(lambda x: 8 * x, init(MODEL.config, jax.random.key(0)))
PROMPT = jax.random.randint(jax.random.key(1), (2, 3), 0, 11)


def naive(prompt, n, choose):
    """The lecture's generate: crop to the last block_size tokens, run it all, take the last."""
    tokens = jnp.asarray(prompt)
    for _ in range(n):
        logits = run_model(MODEL.config, PARAMS, tokens[:, -8:])[:, -1]
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


def test_draws_follow_the_distribution():
    """2,000 draws of one token from the model's own distribution, each row with its key."""
    prompt = jnp.tile(PROMPT[:1], (2000, 1))
    y = generate(MODEL, PARAMS, prompt, KEY, max_new_tokens=1)[:, -1]
    expected = jax.nn.softmax(run_model(MODEL.config, PARAMS, PROMPT[:1])[0, -1])
    found = np.bincount(y, minlength=11) / 2000
    # Four standard deviations of a proportion, sqrt(0.25 / 2000) at most.
    np.testing.assert_allclose(found, expected, atol=4 * 0.0112)


def test_works_with_any_module_of_the_same_call():
    deeper = dataclasses.replace(MODEL.config, n_layer=1, block_size=5)
    model = GPT(deeper)
    y = generate(model, init(deeper, KEY), PROMPT, KEY, max_new_tokens=9)
    assert y.shape == (2, 12)


def test_a_rung_has_no_cache_and_generates_all_the_same():
    model_config = tiny_config(n_head=1).model
    model = RUNGS["head"](model_config)
    params = jax.jit(partial(model.init, deterministic=True))(KEY, PROMPT)["params"]
    y = generate(model, params, PROMPT, KEY, max_new_tokens=12, temperature=0)
    tokens, logits_of = PROMPT, jax.jit(partial(forward, model))
    for _ in range(12):
        logits_BTV = logits_of(params, tokens[:, -8:])
        tokens = jnp.concatenate([tokens, logits_BTV[:, -1:].argmax(-1)], axis=1)
    assert (y == tokens).all()


def joined(prompts, n, **settings) -> Drawn:
    """All that `stream` yields, as one."""
    sampling = settings.pop("sampling", Sampling())
    parts = list(stream(MODEL, PARAMS, prompts, KEY, sampling, max_new_tokens=n, **settings))
    return Drawn(*(np.concatenate(x, axis=1) for x in zip(*parts, strict=True)))


def test_chunked_conditions_on_the_last_half_of_a_full_window():
    """Against windows cut by hand: each time the window of 8 is full, half of it stays."""
    text = PROMPT[:1]
    start = 0
    for n in range(3, 25):
        if n - 1 - start == 8:  # the newest token comes into a full window
            start = n - 1 - 4
        logits_BV = run_model(MODEL.config, PARAMS, text[:, start:])[:, -1]
        text = jnp.concatenate([text, logits_BV.argmax(-1)[:, None]], axis=1)
    y = generate(MODEL, PARAMS, PROMPT[:1], KEY, max_new_tokens=22, temperature=0, window="chunked")
    assert (y == text).all()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("lengths", [[1, 5], [8, 3], [9, 20]])
def test_rows_of_different_lengths_are_each_as_if_alone(lengths, window):
    prompt = jax.random.randint(jax.random.key(2), (2, max(lengths)), 0, 11)
    both = generate(
        MODEL, PARAMS, prompt, KEY, max_new_tokens=20, prompt_lengths=lengths, window=window
    )
    assert both.shape == (2, max(lengths) + 20)
    for row, length in enumerate(lengths):
        alone = joined([prompt[row, :length]], 20, window=window, rows=[row])
        assert (both[row, :length] == prompt[row, :length]).all()
        assert (both[row, length : length + 20] == alone.ids_BK[0]).all()
        assert (both[row, length + 20 :] == 0).all()


@pytest.mark.parametrize("window", WINDOWS)
def test_the_text_does_not_depend_on_how_much_is_made_at_once(window):
    whole = joined(list(PROMPT), 30, window=window)
    sizes = iter([1, 2, 7, 1, 100, 1, 1, 1, 5, 5, 5, 5, 5, 5, 5])
    parts = joined(list(PROMPT), 30, window=window, at_once=lambda: next(sizes))
    assert (whole.ids_BK == parts.ids_BK).all()


def test_one_compile_for_each_batch_and_prompt_bucket(count_compiles):
    """Counts every program that JAX compiles, whatever its name."""
    model = GPT(tiny_config(block_size=40).model)
    params = init(model.config, KEY)
    sampling = Sampling()

    def run(lengths, n, sampling=sampling, key=KEY):
        prompts = [np.ones(length, np.int32) for length in lengths]
        return list(stream(model, params, prompts, key, sampling, max_new_tokens=n))

    other = jax.random.key(9)
    with count_compiles() as compiled:
        run([3], 12)
    assert len(compiled) == 1, compiled
    with count_compiles() as compiled:  # the same buckets: 1 row, up to 16 tokens
        run([3], 400)
        other_settings = {"top_k": 3, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2}
        run([1], 5, Sampling(temperature=0.5, **other_settings))
        run([16], 5, Sampling(temperature=0.0), other)
    assert compiled == []
    for lengths, again in {(1, 1, 1): [5] * 4, (33,): [99]}.items():
        with count_compiles() as compiled:
            run(lengths, 3)
        assert len(compiled) == 1, (lengths, compiled)
        with count_compiles() as compiled:
            run(again, 5)
        assert compiled == [], again


def test_log_probabilities_are_the_models_own():
    """Log-probabilities of the drawn token and of the likeliest, before temperature and filters."""
    sampling = Sampling(temperature=3.0, top_k=5)
    drawn = joined(list(PROMPT), 5, sampling=sampling, alternatives=3)
    text_BT = np.concatenate([PROMPT, drawn.ids_BK], axis=1)
    logprobs_BTV = jax.nn.log_softmax(run_model(MODEL.config, PARAMS, text_BT))[:, 2:-1]
    for row in range(2):
        for k in range(5):
            expected_V = np.asarray(logprobs_BTV[row, k])
            likeliest = np.argsort(-expected_V)[:3]
            assert drawn.best_ids_BKN[row, k].tolist() == likeliest.tolist()
            np.testing.assert_allclose(
                drawn.best_logprobs_BKN[row, k], expected_V[likeliest], atol=1e-4
            )
            chosen = expected_V[drawn.ids_BK[row, k]]
            np.testing.assert_allclose(drawn.logprobs_BK[row, k], chosen, atol=1e-4)


def test_a_penalty_counts_the_whole_text_the_prompt_too():
    """Each token is the likeliest after a penalty on those before it, by a plain forward pass."""
    prompts = [[4, 4, 7], [0, 1, 2], [9, 9, 9], [5, 3, 8]]
    sampling = Sampling(temperature=0, repetition_penalty=3.0)
    drawn = joined(list(map(np.array, prompts)), 5, sampling=sampling)
    without = joined(list(map(np.array, prompts)), 5, sampling=Sampling(temperature=0))
    assert (drawn.ids_BK != without.ids_BK).any(axis=1).all()
    for prompt, new in zip(prompts, drawn.ids_BK.tolist(), strict=True):
        for k, token in enumerate(new):
            text = np.array([[*prompt, *new[:k]]])
            logits_V = np.asarray(run_model(MODEL.config, PARAMS, text)[0, -1])
            penalized_V = np.where(logits_V > 0, logits_V / 3, logits_V * 3)
            used_V = np.isin(np.arange(len(logits_V)), text)
            assert token == np.where(used_V, penalized_V, logits_V).argmax()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature (-0.1) must be at least 0"),
        ({"temperature": float("nan")}, "temperature (nan)"),
        ({"top_k": 0}, "top_k (0) must be at least 1"),
        ({"top_p": 0.0}, "top_p (0.0) must be above 0"),
        ({"top_p": 1.5}, "top_p (1.5)"),
        ({"min_p": -0.1}, "min_p (-0.1)"),
        ({"repetition_penalty": 0.0}, "repetition_penalty (0.0) must be above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens (0) must be at least 1"),
        ({"window": "sliding"}, "window ('sliding') must be one of exact, chunked"),
        ({"prompt_lengths": [1]}, "prompt_lengths [1] must be 2 numbers from 1 to 3"),
        ({"prompt_lengths": [0, 1]}, "prompt_lengths [0, 1]"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(InputError) as caught:
        generate(MODEL, PARAMS, PROMPT, KEY, **{"max_new_tokens": 1} | settings)
    assert message in str(caught.value)


def test_a_prompt_needs_a_token():
    with pytest.raises(InputError, match="with T at least 1"):
        generate(MODEL, PARAMS, np.zeros((1, 0), np.int32), KEY, max_new_tokens=1)
    with pytest.raises(InputError, match="at least one id"):
        joined([np.array([1]), np.array([], np.int32)], 1)
