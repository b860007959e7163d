"""Lowers programs for accelerators on a CPU, and reads their StableHLO text."""

import re
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from gptjax.backends.execution import suited
from gptjax.config import RunConfig
from gptjax.inference import cache, decoding
from gptjax.inference.sampling import Sampling
from gptjax.model import GPT, Execution
from gptjax.store.runs import abstract_params
from gptjax.training import Placement, _loss_sums, init_state, make_keys, make_train_loop

PLATFORMS = ("cuda", "tpu")
# Custom calls of JAX's own functions on a device: none of them calls the host.
OWN_CALLS = {"cu_threefry2x32_ffi"}


class Product(NamedTuple):
    """The dtypes of a matrix product, and its precision."""

    left: str
    right: str
    out: str
    precision: str


class HostCallError(Exception):
    """A program calls the host, which delays a device and prevents lowering here."""


def lower(function: Any, *args: Any) -> export.Exported:
    """Lowers a jitted function for all platforms; raises if a platform cannot lower some part."""
    callbacks = re.findall(r"\w*callback\w*(?=\[)", str(function.trace(*args).jaxpr))
    if callbacks:
        raise HostCallError(", ".join(sorted(set(callbacks))))
    return export.export(function, platforms=PLATFORMS)(*args)


def loop_of(run_config: RunConfig, execution: Execution | None = None) -> export.Exported:
    """The train loop, which is all of training on the device, except a GPU's own attention."""
    model: Any = GPT(run_config.model)
    suits = suited(model, run_config, "tpu")
    model = suits if execution is None else model.clone(execution=execution)
    keys = jax.eval_shape(lambda: make_keys(0))
    state = jax.eval_shape(partial(init_state, model, run_config), keys.params)
    tokens = jax.ShapeDtypeStruct((1000,), jnp.uint8)
    return lower(make_train_loop(model, run_config), state, tokens, keys, jnp.int32(1))


def start_of(run_config: RunConfig) -> export.Exported:
    """The initial values."""
    init = jax.jit(partial(init_state, GPT(run_config.model), run_config))
    return lower(init, jax.eval_shape(lambda: make_keys(0)).params)


def evaluation_of(run_config: RunConfig) -> export.Exported:
    """The sums of `evaluate`, over two batches of two windows."""
    model = GPT(run_config.model)
    tokens, starts = jnp.zeros(1000, jnp.uint8), jnp.zeros((2, 2), jnp.int32)
    T = run_config.model.block_size

    def sums(params: Any, tokens: Any, starts: Any) -> Any:
        return _loss_sums(model, params, tokens, starts, T, Placement())

    return lower(jax.jit(sums), abstract_params(model), tokens, starts)


def prefill_of(run_config: RunConfig) -> export.Exported:
    """The prefill of two rows."""
    model = GPT(run_config.model)
    prefill = jax.jit(partial(cache.prefill, model))
    return lower(prefill, abstract_params(model), jnp.zeros((2, 4), jnp.int32))


def decode_of(run_config: RunConfig) -> export.Exported:
    """A decoding step of two rows, with the cache."""
    model = GPT(run_config.model)
    before = jax.eval_shape(partial(cache.init_cache, run_config.model, 2))
    decode = jax.jit(partial(cache.decode_step, model))
    return lower(decode, abstract_params(model), before, jnp.zeros(2, jnp.int32))


def generation_of(run_config: RunConfig) -> export.Exported:
    """The whole program of sample.py: prompts, many tokens, sliding windows."""
    model = GPT(run_config.model)
    program, state = decoding.prepare(model, [jnp.zeros(3, jnp.int32)] * 2, [0, 1], "chunked", 1)

    def generate(params: Any, state: Any, key: Any, sampling: Any) -> Any:
        return decoding.advance(program, params, state, jnp.int32(9), key, sampling)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return lower(jax.jit(generate), abstract_params(model), state, key, Sampling().traced())


def calls(lowered: export.Exported) -> set[str]:
    """The targets of the program's custom calls: its own kernels, and the host."""
    text = lowered.mlir_module()
    named = set(re.findall(r"stablehlo\.custom_call @([\w.]+)", text))
    # Messages to the host and back, which TPUs use instead of a call.
    return named | set(re.findall(r"stablehlo\.(?:send|recv|infeed|outfeed)\b", text))


def products(lowered: export.Exported) -> Counter[Product]:
    """The number of matrix products of each kind."""
    found: Counter[Product] = Counter()
    for line in lowered.mlir_module().splitlines():
        if "stablehlo.dot_general" in line:
            left, right, out = _dtypes(line.partition(" : ")[2])
            precision = re.search(r"precision = \[(\w+)", line)
            found[Product(left, right, out, precision[1] if precision else "DEFAULT")] += 1
    return found


def widths(lowered: export.Exported) -> set[int]:
    """The last axes of all operands and results of products."""
    lines = [x for x in lowered.mlir_module().splitlines() if "stablehlo.dot_general" in x]
    return {int(n) for line in lines for n in re.findall(r"x(\d+)xbf16>", line)}


def sums(lowered: export.Exported) -> Counter[str]:
    """The dtypes of all sums: by reductions, in windows, and by scattered additions."""
    text = lowered.mlir_module()
    reductions = re.findall(r"reduce\(.*? applies stablehlo\.add across .*", text)
    found = Counter(_dtypes(line.partition(" : ")[2])[-1] for line in reductions)
    bodies = r'"stablehlo\.(?:scatter|reduce_window)"(.*?)\n *\}\)'
    for body in re.findall(bodies, text, re.DOTALL):
        found.update(re.findall(r"stablehlo\.add .*tensor<(\w+)>", body))
    return found


def dtypes_of(lowered: export.Exported, *operations: str) -> set[str]:
    """The dtypes that these elementwise operations compute in."""
    found = set()
    for operation in operations:
        results = re.findall(rf"stablehlo\.{operation} .* : (tensor<.*?>)", lowered.mlir_module())
        found.update(dtype for result in results for dtype in _dtypes(result))
    return found


def _dtypes(types: str) -> list[str]:
    """The dtypes of all tensors in a text, in order."""
    return re.findall(r"tensor<(?:\d+x)*(\w+)>", types)
