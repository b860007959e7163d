import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import GPTConfig
from gptjax.data import Batch
from gptjax.loss import cross_entropy
from gptjax.model import GPT, Block, forward
from gptjax.training import make_train_step

from conftest import fresh_state, init, run_model, tiny_config

KEY = jax.random.key(0)
TINY = tiny_config(n_layer=2).model
LECTURE = GPTConfig(block_size=32, n_layer=2, n_head=4, n_embd=64)
NANOGPT = dataclasses.replace(
    LECTURE,
    activation="gelu",
    bias=False,
    ln_bias=False,
    tie_embeddings=True,
    head_bias=False,
    scaled_residual_init=True,
    embd_dropout=True,
)
GPT2 = dataclasses.replace(NANOGPT, activation="gelu_tanh", qkv_bias=True, bias=True, ln_bias=True)


def ids(model_config, batch=2, key=KEY):
    return jax.random.randint(key, (batch, model_config.block_size), 0, model_config.vocab_size)


def test_parameter_tree_is_the_one_on_disk():
    params = init(TINY, KEY)
    V, T, C, H, D = 11, 8, 16, 2, 8
    block = {
        "ln_1/scale": (C,),
        "ln_1/bias": (C,),
        "ln_2/scale": (C,),
        "ln_2/bias": (C,),
        "attn/heads/query/kernel": (H, C, D),
        "attn/heads/key/kernel": (H, C, D),
        "attn/heads/value/kernel": (H, C, D),
        "attn/proj/kernel": (C, C),
        "attn/proj/bias": (C,),
        "mlp/fc/kernel": (C, 4 * C),
        "mlp/fc/bias": (4 * C,),
        "mlp/proj/kernel": (4 * C, C),
        "mlp/proj/bias": (C,),
    }
    expected = {
        "wte/embedding": (V, C),
        "wpe/embedding": (T, C),
        "ln_f/scale": (C,),
        "ln_f/bias": (C,),
        "lm_head/kernel": (C, V),
        "lm_head/bias": (V,),
    }
    expected |= {f"block_{i}/{name}": shape for i in range(2) for name, shape in block.items()}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    found = {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in leaves}
    assert found == expected
    assert {x.dtype for _, x in leaves} == {jnp.dtype("float32")}


def all_configs():
    flags = [False, True]
    for act, qkv, bias, ln, tie, head, scaled, dtype in itertools.product(
        ["relu", "gelu", "gelu_tanh"], *[flags] * 6, ["float32", "bfloat16"]
    ):
        yield GPTConfig(
            vocab_size=7,
            block_size=4,
            n_layer=1,
            n_head=2,
            n_embd=4,
            dropout=0.1,
            activation=act,
            qkv_bias=qkv,
            bias=bias,
            ln_bias=ln,
            tie_embeddings=tie,
            head_bias=head,
            scaled_residual_init=scaled,
            embd_dropout=qkv != tie,
            dtype=dtype,
        )


@pytest.mark.parametrize("some", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_combinations_of_options_trace_to_float32_logits_and_the_right_parameters(some):
    """All 384 only in the slow tests; otherwise a few with every pair of option values."""
    for model_config in covering_set() if some else all_configs():
        model = GPT(model_config)
        x_BT = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        init = partial(model.init_with_output, deterministic=True)
        logits, params = jax.eval_shape(init, KEY, x_BT)
        assert (logits.shape, logits.dtype) == ((1, 4, 7), jnp.float32)
        names = {
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree_util.tree_leaves_with_path(params["params"])
        }
        assert ("block_0/attn/heads/query/bias" in names) == model_config.qkv_bias
        assert ("block_0/mlp/fc/bias" in names) == model_config.bias
        assert ("ln_f/bias" in names) == model_config.ln_bias
        assert ("lm_head/kernel" in names) != model_config.tie_embeddings
        assert ("lm_head/bias" in names) == model_config.head_bias


def covering_set():
    """Chooses a few configurations greedily, so that they have every pair of option values."""

    def pairs(model_config):
        values = [(f.name, getattr(model_config, f.name)) for f in dataclasses.fields(model_config)]
        return frozenset(itertools.combinations(values, 2))

    by_config = {model_config: pairs(model_config) for model_config in all_configs()}
    left = set().union(*by_config.values())
    chosen = []
    while left:
        chosen.append(max(by_config, key=lambda model_config: len(by_config[model_config] & left)))
        left -= by_config[chosen[-1]]
    return chosen


# The first few of the set have most pairs.
@pytest.mark.parametrize(
    "model_config",
    [
        pytest.param(c, marks=() if i < 3 else pytest.mark.slow)
        for i, c in enumerate(covering_set())
    ],
)
def test_a_step_of_training_moves_every_parameter(model_config):
    run_config = dataclasses.replace(tiny_config(), model=model_config)
    model = GPT(model_config)
    state = fresh_state(run_config, KEY)
    x_BT = jax.random.randint(KEY, (4, 4), 0, 7)
    batch = Batch(x_BT, jnp.roll(x_BT, -1, 1))
    new, metrics = jax.jit(make_train_step(model, run_config))(state, batch, KEY)
    assert math.isfinite(metrics.loss)
    for before, after in zip(*map(jax.tree.leaves, (state.params, new.params)), strict=True):
        assert after.dtype == jnp.float32
        assert (before != after).any()


@pytest.mark.parametrize(
    "model_config", [LECTURE, NANOGPT, GPT2], ids=["lecture", "nanogpt", "gpt2"]
)
def test_loss_at_initialisation_is_near_the_logarithm_of_the_vocabulary(model_config):
    x_BT = ids(model_config, 8)
    y_BT = ids(model_config, 8, jax.random.key(1))
    loss = cross_entropy(run_model(model_config, init(model_config, KEY), x_BT), y_BT)
    assert abs(float(loss) - math.log(65)) < 0.05


def test_no_gradient_flows_from_the_future():
    """d logits[t] / d wpe[s] is zero for s after t, and not zero for s up to t."""
    model = GPT(TINY)
    params = init(TINY, KEY)
    x_BT = ids(TINY, 1)

    def row(wpe, t):
        changed = params | {"wpe": {"embedding": wpe}}
        return (forward(model, changed, x_BT)[0, t] ** 2).sum()

    gradients = jax.jit(jax.vmap(jax.grad(row), (None, 0)))(
        params["wpe"]["embedding"], jnp.arange(8)
    )
    influence_TS = np.abs(gradients).sum(-1)
    assert (influence_TS[np.triu_indices(8, 1)] == 0).all()
    assert (influence_TS[np.tril_indices(8)] > 0).all()


def test_changing_a_token_changes_no_logits_before_it():
    params = init(TINY, KEY)
    x_BT = ids(TINY, 1)
    before = run_model(TINY, params, x_BT)
    for s in range(8):
        after = run_model(TINY, params, x_BT.at[0, s].set((x_BT[0, s] + 1) % 11))
        assert (before[0, :s] == after[0, :s]).all()
        assert (before[0, s:] != after[0, s:]).any(axis=-1).all()


def test_dropout_is_random_by_its_key_and_off_when_deterministic():
    model_config = dataclasses.replace(TINY, dropout=0.5)
    params = init(model_config, KEY)
    x_BT = ids(TINY)
    one, again, other = (
        run_model(model_config, params, x_BT, jax.random.key(k)) for k in (1, 1, 2)
    )
    assert (one == again).all()
    assert (one != other).any()
    assert (run_model(model_config, params, x_BT) == run_model(TINY, params, x_BT)).all()


def test_a_blocks_keys_follow_from_its_number_and_nothing_else():
    """Whatever the form of the blocks, the same key gives the same model and the same masks."""
    block, x_BTC = Block(TINY), jnp.zeros((1, 1, 16))
    for i in range(TINY.n_layer):
        own = jax.jit(block.init)(jax.random.fold_in(KEY, i), x_BTC, None)["params"]
        jax.tree.map(np.testing.assert_array_equal, own, init(TINY, KEY)[f"block_{i}"])


def test_each_dropout_site_is_there():
    """With the same random numbers, dropout at more sites changes the output."""
    x_BT = ids(TINY)
    outputs = []
    for embd in (False, True):
        model_config = dataclasses.replace(TINY, dropout=0.5, embd_dropout=embd)
        outputs.append(run_model(model_config, init(model_config, KEY), x_BT, jax.random.key(1)))
    assert (outputs[0] != outputs[1]).any()


def test_tied_output_layer_reads_the_token_table():
    model_config = dataclasses.replace(TINY, tie_embeddings=True, head_bias=True)
    params = init(model_config, KEY)
    assert set(params["lm_head"]) == {"bias"}
    shifted = params | {"lm_head": {"bias": jnp.arange(11.0)}}
    x_BT = ids(model_config)
    difference = run_model(model_config, shifted, x_BT) - run_model(model_config, params, x_BT)
    np.testing.assert_allclose(difference, np.broadcast_to(np.arange(11.0), (2, 8, 11)), atol=1e-5)


def test_bfloat16_computes_close_to_float32_from_the_same_parameters():
    half = dataclasses.replace(TINY, dtype="bfloat16")
    params = init(TINY, KEY)
    x_BT = ids(TINY)
    logits, rounded = run_model(TINY, params, x_BT), run_model(half, params, x_BT)
    assert rounded.dtype == jnp.float32
    # bfloat16 keeps 8 bits, so about 1/256 of the largest logit, over a few roundings.
    np.testing.assert_allclose(rounded, logits, atol=0.02 * float(np.abs(logits).max()))
    assert (logits != rounded).any()


def test_more_positions_than_the_block_are_refused():
    with pytest.raises(AssertionError, match="9 positions do not fit block_size"):
        run_model(TINY, init(TINY, KEY), jnp.zeros((1, 9), jnp.int32))
