"""The GPT of gptjax: modules without state, and functions from values to values.

Nothing here holds state. `make` returns the parameters and the optimizer's numbers as one value,
`train_step` takes it and returns the next one, and whoever calls keeps it.

    state = make(run_config, seed=0)
    state, loss = train_step(run_config, state, x_BT, y_BT, key)
    tokens = generate(run_config, state.params, prompt_BT, key, Settings(max_new_tokens=100))

`execution` injects a backend's own products and attention into the model; by default both are
plain. `train.py` trains with those of its backend, `gptjax.generate` samples with the plain ones.
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
    """Fresh parameters, and the optimizer's state before the first update."""
    return training.init_state(gptjax.GPT(run_config.model), run_config, jax.random.key(seed))


@partial(jax.jit, static_argnames=("run_config", "execution"))
def forward(
    run_config: RunConfig,
    params: Params,
    x_BT: Array,
    dropout_key: Array | None = None,
    execution: Execution = PLAIN,
) -> Array:
    """Logits (B, T, V), float32; dropout only where a key is given."""
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
        key: of the run; the step derives its own from its number.
    """
    step = training.make_train_step(gptjax.GPT(run_config.model, execution), run_config)
    state, metrics = step(state, Batch(x_BT, y_BT), key)
    return state, metrics.loss


# The old state's memory is taken over.
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
    """The prompts and what follows, (B, T + max_new_tokens).

    `gptjax.generate` has more: a sampler's settings, rows of different lengths, a stream of tokens.
    This is its cache in the loop that the other contestants have.
    """
    gpt = gptjax.GPT(run_config.model)
    reader = Reader(
        whole=partial(model.forward, gpt),
        prefill=partial(cache.prefill, gpt),
        decode=lambda params, past, token_B, _: cache.decode_step(gpt, params, past, token_B),
    )
    return sample(reader, params, prompt_BT, key, run_config.model.block_size, settings)


def save(path: Path, state: training.TrainState) -> None:
    """Orbax, a sha256 of every file, a flush to the disk, a rename: what this project does."""
    path.mkdir(parents=True, exist_ok=True)
    saver = checkpoint.Saver(path, keep=1)
    saver.save(state, val_loss=None)
    saver.wait()


def load(path: Path, run_config: RunConfig) -> training.TrainState:
    """The state that was saved last; the sha256 of each file is checked."""
    found, _ = listing.list_checkpoints(path)
    return checkpoint.load_state(found[-1].path, jax.eval_shape(partial(make, run_config, 0)))
