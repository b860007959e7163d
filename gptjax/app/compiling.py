"""The start of a run: its updates are compiled while its state is initialized."""

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
    """The state before the first update, computed while `update` is compiled for it.

    Much of a compile keeps one core busy, so two at once are done sooner than one after the other
    (docs/performance.md). `jax.jit` keeps what it compiled: the first call of `update` finds it.

    Args:
        init: a key to a state.
        update: of `make_train_loop`, to be called with this state, these tokens and keys.
        mesh: of the devices; tokens and keys are on all of them.
    """
    abstract = sharding.target(mesh, jax.eval_shape(init, keys.params))
    where = None if mesh is None else jax.tree.map(lambda x: x.sharding, abstract)
    options = compile_once_options(platform())
    init = jax.jit(init, out_shardings=where, compiler_options=options)
    with ThreadPoolExecutor(1) as another:
        state = another.submit(init, keys.params)
        if jax.process_count() > 1:  # all processes must come to each program in the same order
            state.result()
        update.lower(abstract, tokens, keys, 1).compile()
        return state.result()
