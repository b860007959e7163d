"""The programs for GPU and TPU, checked on a CPU: each program lowers for both, and none calls the
host. With bfloat16, matrix products are of bfloat16, and everything else that is summed, normalised
or stored is float32.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from gptjax.loss import LARGE_VOCABULARY
from gptjax.model import Execution, attention_weights, weighted_values
from gptjax.muon import ITERATIONS
from gptjax.presets import PRESETS

from conftest import tiny_config
from lowered import (
    OWN_CALLS,
    HostCallError,
    Product,
    calls,
    decode_of,
    dtypes_of,
    evaluation_of,
    generation_of,
    loop_of,
    prefill_of,
    products,
    start_of,
    sums,
    widths,
)

# GPT-2's layers: biases everywhere. tanh GELU, so that exponentials are those of a softmax alone.
ALL = {"bias": True, "qkv_bias": True, "ln_bias": True, "activation": "gelu_tanh"}
BFLOAT16 = tiny_config(n_layer=2, dtype="bfloat16", tie_embeddings=True, **ALL)
PLAIN = Product("f32", "f32", "f32", "DEFAULT")
FAST = Product("bf16", "bf16", "bf16", "DEFAULT")
EXACT = Product("f32", "f32", "f32", "HIGHEST")

PROGRAMS = {
    "start": lambda: start_of(BFLOAT16),
    "train": lambda: loop_of(tiny_config()),
    "train with remat": lambda: loop_of(tiny_config(remat=True)),
    "train in bfloat16": lambda: loop_of(BFLOAT16),
    "train with dropout": lambda: loop_of(BFLOAT16.replace(dropout=0.2, embd_dropout=True)),
    "train in micro-batches": lambda: loop_of(BFLOAT16.replace(micro_batch_size=2)),
    "train with scanned blocks": lambda: loop_of(BFLOAT16.replace(scan_layers=True)),
    "train with a large vocabulary": lambda: loop_of(
        BFLOAT16.replace(vocab_size=LARGE_VOCABULARY, head_bias=True)
    ),
    "train with Muon": lambda: loop_of(BFLOAT16.replace(optimizer="muon")),
    "evaluate": lambda: evaluation_of(BFLOAT16),
    "prefill": lambda: prefill_of(BFLOAT16),
    "decode": lambda: decode_of(BFLOAT16),
    "generate": lambda: generation_of(BFLOAT16),
}


@functools.cache
def lowered(program):
    return PROGRAMS[program]()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_lowers_for_gpus_and_tpus_and_never_calls_the_host(program):
    assert lowered(program).platforms == ("cuda", "tpu")
    assert calls(lowered(program)) <= OWN_CALLS


@pytest.mark.parametrize("program", sorted(PROGRAMS.keys() - {"start", "train with Muon"}))
def test_products_take_the_dtype_of_the_run(program):
    of_float32 = program in ("train", "train with remat")
    assert set(products(lowered(program))) == {PLAIN if of_float32 else FAST}


@pytest.mark.parametrize(("preset", "odd"), [("shakespeare", {65}), ("gpt2", set())])
def test_rows_of_matrices_are_whole_tiles(preset, odd):
    """Tensor cores want multiples of 8 numbers, and tiles are of 64 and more. A large vocabulary is
    padded in memory; one of 65 characters is not, being a two-hundredth of the work.
    """
    program = loop_of(PRESETS[preset].replace(n_layer=1, dtype="bfloat16"))
    found = widths(program)
    assert {384, 768} & found
    assert {n for n in found if n % 64} == odd


def test_muons_iterations_alone_are_float32_products():
    plain, muon = products(lowered("train in bfloat16")), products(lowered("train with Muon"))
    assert muon.pop(FAST) == plain[FAST]
    assert set(muon) == {EXACT}
    assert muon[EXACT] >= 2 * ITERATIONS


@pytest.mark.parametrize("program", PROGRAMS)
def test_sums_are_float32(program):
    """Those of softmax, norms and loss, and those of every gradient over the batch.

    The embeddings' and the biases' gradients once were sums in bfloat16: wrong by 5 %.
    """
    of_numbers = {dtype for dtype in sums(lowered(program)) if dtype[0] in "bf"}
    assert of_numbers <= {"f32"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_softmax_norms_and_loss_are_float32(program):
    assert dtypes_of(lowered(program), "exponential", "log", "rsqrt", "sqrt") == {"f32"}


@pytest.mark.parametrize("program", ["train in bfloat16", "train with Muon"])
def test_parameters_moments_and_metrics_are_float32(program):
    arrays = {aval.dtype for aval in lowered(program).out_avals if aval.ndim}
    *_, loss, norm, rate, _, _ = lowered(program).out_avals
    assert arrays | {loss.dtype, norm.dtype, rate.dtype} == {jnp.dtype("float32")}


def test_logits_are_float32_and_the_cache_is_of_the_runs_dtype():
    logits, *cache = lowered("decode").out_avals
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in cache if x.ndim > 1} == {jnp.dtype("bfloat16")}


def with_attention(attention):
    return loop_of(BFLOAT16, Execution(lambda q, k, v, drop: attention(q, k, v)))


def plain(q, k, v):
    return weighted_values(attention_weights(q, k), v)


def test_a_call_of_the_host_would_be_seen():
    def careless(q, k, v):
        jax.debug.callback(lambda x: None, q)
        return plain(q, k, v)

    with pytest.raises(HostCallError, match="callback"):
        with_attention(careless)


def test_a_float32_product_would_be_seen():
    def careless(q, k, v):
        return plain(q.astype(jnp.float32), k, v).astype(q.dtype)

    assert set(products(with_attention(plain))) == {FAST}
    assert any("f32" in product for product in products(with_attention(careless)))


def test_a_sum_in_bfloat16_would_be_seen():
    def careless(q, k, v):
        return plain(q, k, v) + jax.lax.reduce_sum(q, axes=(1,))[:, None]

    assert "bf16" in sums(with_attention(careless))
