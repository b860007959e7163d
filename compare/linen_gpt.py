"""The GPT of gptjax: modules without state, and functions from values to values.

Nothing here holds state. `make` returns the parameters and the optimizer's state as one value.
`train_step` takes this value and returns the next one. The caller keeps it.

    state = make(run_config, seed=0)
    state, loss = train_step(run_config, state, x_BT, y_BT, key)
    tokens = generate(run_config, state.params, prompt_BT, key, Settings(max_new_tokens=100))

`execution` injects a backend's products and attention into the model; the defaults are plain JAX.
`train.py` trains with those of its backend, and `gptjax.generate` samples with the plain ones.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax

import gptjax
from compare.sampling import Reader, Settings, sample
from gptjax import model, training
from gptjax.config import RunConfig
from gptjax.data import Batch
from gptjax.inference import cache
from gptjax.loss import cross_entropy
from gptjax.model import PLAIN, Execution
from gptjax.store import checkpoint, listing

Array = jax.Array
Params = Any


@partial(jax.jit, static_argnums=(0, 1))
def make(run_config: RunConfig, seed: int) -> training.TrainState:
    """Initializes the parameters and the optimizer's state."""
    return training.init_state(gptjax.GPT(run_config.model), run_config, jax.random.key(seed))


@partial(jax.jit, static_argnames=("run_config", "execution"))
def forward(
    run_config: RunConfig,
    params: Params,
    x_BT: Array,
    dropout_key: Array | None = None,
    execution: Execution = PLAIN,
) -> Array:
    """Logits (B, T, V), float32; with dropout only if a key is given."""
    return model.forward(gptjax.GPT(run_config.model, execution), params, x_BT, dropout_key)


@partial(jax.jit, static_argnames=("run_config", "execution"))
def loss(
    run_config: RunConfig,
    params: Params,
    x_BT: Array,
    y_BT: Array,
    dropout_key: Array | None = None,
    execution: Execution = PLAIN,
) -> Array:
    """Mean cross entropy, nats per token."""
    return cross_entropy(forward(run_config, params, x_BT, dropout_key, execution), y_BT)


def update(
    run_config: RunConfig,
    state: training.TrainState,
    x_BT: Array,
    y_BT: Array,
    key: Array,
    execution: Execution = PLAIN,
) -> tuple[training.TrainState, Array]:
    """The state after one update, and the loss before it. Not jitted.

    Args:
        key: the run's key; each step derives its own key from its number.
    """
    step = training.make_train_step(gptjax.GPT(run_config.model, execution), run_config)
    state, metrics = step(state, Batch(x_BT, y_BT), key)
    return state, metrics.loss


# Donation reuses the old state's memory.
train_step = jax.jit(update, static_argnames=("run_config", "execution"), donate_argnames="state")


@partial(jax.jit, static_argnames=("run_config", "execution"), donate_argnames="state")
def train_steps(
    run_config: RunConfig,
    state: training.TrainState,
    x_NBT: Array,
    y_NBT: Array,
    key: Array,
    execution: Execution = PLAIN,
) -> tuple[training.TrainState, Array]:
    """N updates in one dispatch: the state after them, and their losses, (N,)."""

    def one(state: training.TrainState, batch: Any) -> tuple[training.TrainState, Array]:
        x_BT, y_BT = batch
        return update(run_config, state, x_BT, y_BT, key, execution)

    return jax.lax.scan(one, state, (x_NBT, y_NBT))


@partial(jax.jit, static_argnames=("run_config", "settings"))
def generate(
    run_config: RunConfig, params: Params, prompt_BT: Array, key: Array, settings: Settings
) -> Array:
    """The prompts and the new tokens, (B, T + max_new_tokens).

    `gptjax.generate` has more: sampling settings, rows of different lengths, streaming. This is its
    cache in the loop that the other contestants use.
    """
    gpt = gptjax.GPT(run_config.model)
    reader = Reader(
        whole=partial(model.forward, gpt),
        prefill=partial(cache.prefill, gpt),
        decode=lambda params, past, token_B, _: cache.decode_step(gpt, params, past, token_B),
    )
    return sample(reader, params, prompt_BT, key, run_config.model.block_size, settings)


def save(path: Path, state: training.TrainState) -> None:
    """Saves as this project does: Orbax, a sha256 of every file, a flush to disk, a rename."""
    path.mkdir(parents=True, exist_ok=True)
    saver = checkpoint.Saver(path, keep=1)
    saver.save(state, val_loss=None)
    saver.wait()


def load(path: Path, run_config: RunConfig) -> training.TrainState:
    """Loads the state that was saved last, and checks the sha256 of each file."""
    found, _ = listing.list_checkpoints(path)
    return checkpoint.load_state(found[-1].path, jax.eval_shape(partial(make, run_config, 0)))
