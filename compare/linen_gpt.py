"""The GPT of gptjax: modules that describe, and functions from values to values.

Nothing here holds state. `make` returns the parameters and the optimizer's numbers as one value,
`train_step` takes it and returns the next one, and whoever calls keeps it.

    state = make(config, seed=0)
    state, loss = train_step(config, state, x_BT, y_BT, key)
    text = generate(config, state.params, prompt_BT, key, max_new_tokens=100)
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax

import gptjax
from gptjax import model, training
from gptjax.backends import execution
from gptjax.config import RunConfig
from gptjax.data import Batch
from gptjax.loss import cross_entropy
from gptjax.store import checkpoint, listing

Array = jax.Array
Params = Any


@partial(jax.jit, static_argnums=(0, 1))
def make(config: RunConfig, seed: int) -> training.TrainState:
    """Fresh parameters, and the optimizer's state before the first update."""
    return training.init_state(gptjax.GPT(config.model), config, jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def forward(
    config: RunConfig, params: Params, x_BT: Array, dropout_key: Array | None = None
) -> Array:
    """Logits (B, T, V), float32; dropout only where a key is given."""
    return model.forward(gptjax.GPT(config.model), params, x_BT, dropout_key)


@partial(jax.jit, static_argnums=0)
def loss(
    config: RunConfig, params: Params, x_BT: Array, y_BT: Array, dropout_key: Array | None = None
) -> Array:
    """Mean cross entropy, nats per token."""
    return cross_entropy(forward(config, params, x_BT, dropout_key), y_BT)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    config: RunConfig, state: training.TrainState, x_BT: Array, y_BT: Array, key: Array
) -> tuple[training.TrainState, Array]:
    """The state after one update, and the loss before it. The old state's memory is taken over.

    Args:
        key: of the run; the step derives its own from its number.
    """
    model = execution.suited(gptjax.GPT(config.model), config, jax.default_backend())
    step = training.make_train_step(model, config)
    state, metrics = step(state, Batch(x_BT, y_BT), key)
    return state, metrics.loss


def generate(
    config: RunConfig,
    params: Params,
    prompt_BT: Any,
    key: Array,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Array:
    """The prompts and what follows, (B, T + max_new_tokens); temperature 0 is greedy."""
    return gptjax.generate(
        gptjax.GPT(config.model),
        params,
        prompt_BT,
        key,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
    )


def save(path: Path, state: training.TrainState) -> None:
    """Orbax, a sha256 of every file, a flush to the disk, a rename: what this project does."""
    path.mkdir(parents=True, exist_ok=True)
    saver = checkpoint.Saver(path, keep=1)
    saver.save(state, val_loss=None)
    saver.wait()


def load(path: Path, config: RunConfig) -> training.TrainState:
    """The state that was saved last, its files held to their sha256."""
    found, _ = listing.list_checkpoints(path)
    return checkpoint.load_state(found[-1].path, jax.eval_shape(partial(make, config, 0)))
