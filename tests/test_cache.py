"""The cache: decoding with it gives the full forward pass's logits, wherever the prompt ends."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gptjax.config import GPTConfig
from gptjax.inference.cache import decode_step, init_cache, pack_heads, prefill, slide, unpack_heads
from gptjax.model import GPT

from conftest import init, run_model, tiny_config

KEY = jax.random.key(3)
jit_prefill = jax.jit(prefill, static_argnums=0)
jit_step = jax.jit(decode_step, static_argnums=0)
jit_slide = jax.jit(slide, static_argnums=0)


def decode_all(model_config, params, cache, tokens_BT):
    """Decodes known tokens one by one: the logits after each, (B, T, V), and the cache then."""
    found = []
    for token_B in tokens_BT.T:
        logits_BV, cache = jit_step(GPT(model_config), params, cache, token_B)
        found.append(logits_BV)
    return jnp.stack(found, axis=1), cache


def sharp(model_config: GPTConfig):
    """Parameters larger than at initialisation, so that attention is far from uniform."""
    return jax.tree.map(lambda x: 8 * x, init(model_config, KEY))


def tokens_of(model_config, batch):
    return jax.random.randint(KEY, (batch, model_config.block_size), 0, model_config.vocab_size)


def difference(found, expected):
    """The largest difference, in units of the largest logit."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def sensitivity(model_config, params, tokens_BT):
    """The largest difference of 3 tries in which each parameter is the next float32, up or down."""
    rng, logits_BTV = np.random.default_rng(0), run_model(model_config, params, tokens_BT)

    def next_to(x):
        return np.nextafter(x, np.where(rng.random(x.shape) < 0.5, np.inf, -np.inf), dtype=x.dtype)

    tries = [run_model(model_config, jax.tree.map(next_to, params), tokens_BT) for _ in range(3)]
    return max(difference(*rows) for t in tries for rows in zip(t, logits_BTV, strict=True))


def make_config(heads, size, dtype, **fields):
    # LayerNorm of two values is the sign of their difference, which bfloat16 does not preserve.
    size = 5 if dtype == "bfloat16" else size
    return tiny_config(n_head=heads, n_embd=heads * size, dtype=dtype, **fields).model


CONFIGS = st.builds(
    make_config,
    heads=st.sampled_from([1, 3]),
    size=st.sampled_from([2, 5]),
    n_layer=st.integers(1, 2),
    block_size=st.integers(1, 9),
    qkv_bias=st.booleans(),
    tie_embeddings=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)


@pytest.mark.parametrize(
    "examples", [pytest.param(3, id="few"), pytest.param(24, id="many", marks=pytest.mark.slow)]
)
def test_cached_logits_are_the_full_forwards(examples):
    """Any configuration, with rows of different lengths, decoded until the longest row is full."""

    @given(model_config=CONFIGS, lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3))
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],  # each example compiles: shrinking would be slow
    )
    def check(model_config, lengths):
        check_rows(model_config, [min(n, model_config.block_size) for n in lengths])

    check()


def test_a_prompt_may_end_anywhere():
    """Every length from 1 to block_size, as rows of one batch and each alone."""
    model_config = tiny_config(n_layer=2).model
    lengths = list(range(1, model_config.block_size + 1))
    check_rows(model_config, lengths)
    for length in lengths:
        check_rows(model_config, [length])


def check_rows(model_config, lengths):
    model, params, tokens_BT = (
        GPT(model_config),
        sharp(model_config),
        tokens_of(model_config, len(lengths)),
    )
    expected_BTV = run_model(model_config, params, tokens_BT)
    if model_config.dtype == "float32":
        # Parameters this large amplify rounding: two ways to sum differ as much as the logits
        # change when each parameter is the next float32 (at most 1.9 times in 200 models).
        tolerance = max(1e-5, 4 * sensitivity(model_config, params, tokens_BT))
    else:
        # bfloat16 keeps 8 bits, and parameters this large amplify rounding: two ways to sum
        # differ by twice bfloat16's own error (at most 2.2 times in 360 models).
        exact_BTV = run_model(dataclasses.replace(model_config, dtype="float32"), params, tokens_BT)
        off = max(difference(a, b) for a, b in zip(expected_BTV, exact_BTV, strict=True))
        tolerance = max(2e-2, 3 * off)
    logits_BV, cache = jit_prefill(model, params, tokens_BT, jnp.array(lengths))
    for row, length in enumerate(lengths):
        assert difference(logits_BV[row], expected_BTV[row, length - 1]) < tolerance
    room = model_config.block_size - max(lengths)
    rest_BT = jnp.stack([t[n : n + room] for t, n in zip(tokens_BT, lengths, strict=True)])
    if room:
        found_BTV, cache = decode_all(model_config, params, cache, rest_BT)
        for row, length in enumerate(lengths):
            wanted_TV = expected_BTV[row, length : length + room]
            assert difference(found_BTV[row], wanted_TV) < tolerance
    assert (cache.length_B == jnp.array(lengths) + room).all()


def test_a_cache_may_start_empty():
    model_config = tiny_config().model
    tokens_BT = tokens_of(model_config, 2)
    params = sharp(model_config)
    found_BTV, _ = decode_all(model_config, params, init_cache(model_config, 2), tokens_BT)
    assert difference(found_BTV, run_model(model_config, params, tokens_BT)) < 1e-5


def test_after_a_slide_the_window_is_its_last_half():
    """Row 0 slides and row 1 does not; both continue for more than one turn of the ring buffer."""
    model_config = tiny_config(n_layer=2).model
    model, params, S = GPT(model_config), sharp(model_config), model_config.block_size
    text_BT = jax.random.randint(jax.random.key(5), (2, 30), 0, model_config.vocab_size)
    start = [0, S - 3]  # row 1's prompt is its last 3 tokens
    prompt_BT = jnp.stack([text_BT[0, :S], jnp.pad(text_BT[1, S - 3 : S], (0, S - 3))])
    _, cache = jit_prefill(model, params, prompt_BT, jnp.array([S, 3]))
    for n in range(S, 30):
        full = np.asarray(cache.length_B) == S
        if full.any():
            ring_BS = text_BT[
                :, n - S + (jnp.arange(S) - n) % S
            ]  # the last S tokens in their slots
            ring_BS = jnp.roll(ring_BS, S, axis=1)
            cache = jit_slide(model, params, cache, ring_BS, jnp.array(full))
            start = [n - S // 2 if f else s for f, s in zip(full, start, strict=True)]
        logits_BV, cache = jit_step(model, params, cache, text_BT[:, n])
        for row in range(2):
            window = text_BT[row : row + 1, start[row] : n + 1]
            expected_V = run_model(model_config, params, window)[0, -1]
            assert difference(logits_BV[row], expected_V) < 1e-5, (n, row)


def test_a_block_of_one_has_no_half():
    model_config = tiny_config(block_size=1).model
    params = sharp(model_config)
    _, cache = jit_prefill(GPT(model_config), params, jnp.array([[3]]))
    cache = jit_slide(GPT(model_config), params, cache, jnp.array([[3]]), jnp.array([True]))
    logits_BV, _ = jit_step(GPT(model_config), params, cache, jnp.array([5]))
    assert difference(logits_BV, run_model(model_config, params, jnp.array([[5]]))[:, -1]) < 1e-5


def test_the_dtype_of_the_cache_is_the_computations():
    model_config = tiny_config(dtype="bfloat16").model
    assert init_cache(model_config, 1).values_HBSD[0].dtype == jnp.bfloat16
    assert init_cache(model_config, 1, "float32").keys_HBDS[0].dtype == jnp.float32
    _, cache = jit_prefill(GPT(model_config), init(model_config, KEY), tokens_of(model_config, 2))
    assert jax.tree.leaves(cache)[0].dtype == jnp.bfloat16


def test_packing_is_undone():
    params = init(tiny_config(qkv_bias=True).model, KEY)
    packed = pack_heads(params)
    assert packed["block_0"]["attn"]["heads"]["query"]["kernel"].shape == (16, 2, 8)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), params, unpack_heads(packed))
    assert all(jax.tree.leaves(same))


@pytest.mark.slow
def test_the_cache_is_written_in_place():
    """XLA once copied the whole cache for each token, which took as long as the model.

    With XLA's usual optimizations: one copy of each array before the loop, and none inside it.
    """
    model_config = tiny_config(n_layer=2, block_size=64, n_embd=32).model

    def many(params, cache, token_B):
        def step(_, carry):
            logits_BV, cache = decode_step(GPT(model_config), params, *carry)
            return cache, logits_BV.argmax(-1).astype(jnp.int32)

        return jax.lax.fori_loop(0, 20, step, (cache, token_B))

    arguments = (init(model_config, KEY), init_cache(model_config, 2), jnp.zeros(2, jnp.int32))
    program = jax.jit(many).lower(*arguments).compile({"xla_backend_optimization_level": 3})
    copies = re.findall(r"= f32\[2,2,(?:16,64|64,16)\]\S* copy\(", program.as_text() or "")
    assert len(copies) <= 4, copies
