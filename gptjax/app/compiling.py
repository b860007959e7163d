"""Starts a run: compiles its updates while it initializes its state."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh

from gptjax.backends import sharding
from gptjax.backends.devices import platform
from gptjax.backends.execution import compile_once_options
from gptjax.data import Block
from gptjax.training import Keys, TrainState


def compile_and_initialize(
    init: Callable[[jax.Array], TrainState],
    update: Any,
    tokens: jax.Array | Block,
    keys: Keys,
    mesh: Mesh | None = None,
) -> TrainState:
    """Returns the state before the first update, computed while `update` is compiled for it.

    Compiling mostly uses one core, so compiling two programs at once takes less time than one after
    the other (docs/performance.md). `jax.jit` caches what it compiled, so the first call of
    `update` does not compile again.

    Args:
        init: makes a state from a key.
        update: from `make_train_loop`; it will be called with this state, these tokens and keys.
        mesh: the devices; tokens and keys are on all of them.
    """
    abstract = sharding.target(mesh, jax.eval_shape(init, keys.params))
    where = None if mesh is None else jax.tree.map(lambda x: x.sharding, abstract)
    options = compile_once_options(platform())
    init = jax.jit(init, out_shardings=where, compiler_options=options)
    with ThreadPoolExecutor(1) as another:
        state = another.submit(init, keys.params)
        if jax.process_count() > 1:  # all processes must run the programs in the same order
            state.result()
        update.lower(abstract, tokens, keys, 1).compile()
        return state.result()
