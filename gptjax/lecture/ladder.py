"""Trains the lecture's models, the rungs of a ladder, with several seeds in one program.

Each seed's run equals `python train.py --preset <rung> --seed <seed>`: the parameters, batches and
updates are the same. `jax.vmap` adds a leading axis of seeds.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.app.pacing import updates_within
from gptjax.config import RunConfig
from gptjax.data import sample_batch
from gptjax.errors import InputError, RunError
from gptjax.inference.generation import generate
from gptjax.loss import cross_entropy
from gptjax.model import config_of, forward, num_params
from gptjax.presets import PRESETS
from gptjax.store.runs import make_model
from gptjax.tokenizer import CharTokenizer
from gptjax.training import (
    Keys,
    Metrics,
    TrainState,
    evaluate,
    init_state,
    make_keys,
    make_train_step,
)

Array = jax.Array

# The lecture estimates a loss by the mean over this many random batches of a split.
ESTIMATE_BATCHES = 200
# A dispatch takes about this many seconds: short enough to respond to Ctrl-C and show progress.
DISPATCH_SECONDS = 1.0
SAMPLE_TOKENS = 400


class Rung(NamedTuple):
    """A model of the ladder.

    Attributes:
        adds: what this model adds to the previous one.
        lecture: the validation loss that the lecture reaches, in nats per character; None if the
            lecture does not train this model.
        preset: the preset to train it with, if its name is not the rung's.
    """

    adds: str
    lecture: float | None = None
    preset: str = ""


# In the lecture's order, by preset. The last figure comes from the log in the lecture's notebook.
LADDER = {
    "bigram": Rung("a table of what follows what", 2.50),
    "head": Rung("positions, one head of self-attention", 2.40),
    "multihead": Rung("four heads side by side", 2.28),
    "feedforward": Rung("a feed-forward layer", 2.24),
    "residual": Rung("three blocks, residual connections, 4x feed-forward", 2.08),
    "layernorm": Rung("LayerNorm: the GPT, small", 2.06),
    "notebook": Rung("64 wide, 4 blocks, contexts of 32", 1.8226),
}
# Variants of rungs, for comparison. They are trained only if --rungs names them.
BESIDE = {
    "head-normal": Rung("head, from N(0, 0.02)", preset="head"),
    "multihead-normal": Rung("multihead, from N(0, 0.02)", preset="multihead"),
    "feedforward-normal": Rung("feedforward, from N(0, 0.02)", preset="feedforward"),
    "residual-normal": Rung("residual, from N(0, 0.02)", preset="residual"),
    "sinusoids": Rung("layernorm, with sinusoids for positions", preset="layernorm"),
    "without-positions": Rung("layernorm, without positions", preset="layernorm"),
}
ALL = LADDER | BESIDE


class Climbed(NamedTuple):
    """One rung with all its seeds. Losses are nats per character.

    Attributes:
        losses: over the whole validation split, one per seed.
        estimates: over 200 random batches of that split, as in the lecture, one per seed.
        seconds: time for all seeds together, including compilation.
        sample: text that the first seed's model generated.
    """

    name: str
    parameters: int
    losses: list[float]
    estimates: list[float]
    lecture: float | None
    seconds: float
    sample: str


def choose(names: str) -> list[str]:
    """Parses a comma-separated list of rungs, and returns it in the ladder's order.

    Raises:
        InputError: a name is unknown, or the list is empty.
    """
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in ALL:
            raise InputError(f"--rungs: {name!r} must be one of {', '.join(ALL)}")
    if not asked:
        raise InputError(f"--rungs is empty: choose from {', '.join(ALL)}")
    return [name for name in ALL if name in asked]


def rung_config(name: str, vocab_size: int, max_iters: int | None = None) -> RunConfig:
    """The configuration of a rung for a text with `vocab_size` different characters."""
    preset = ALL[name].preset
    run_config = PRESETS[preset].replace(model_name=name) if preset else PRESETS[name]
    run_config = run_config.replace(vocab_size=vocab_size)
    return run_config if max_iters is None else run_config.replace(max_iters=max_iters)


def climb(
    name: str,
    run_config: RunConfig,
    train_tokens: np.ndarray,
    val_tokens: np.ndarray,
    seeds: list[int],
    tokenizer: CharTokenizer,
    stepped: Callable[[int], None] = lambda _: None,
) -> Climbed:
    """Trains one rung with all seeds at once, evaluates it, and generates a sample.

    Args:
        seeds: as in `train.py --seed`; each gives other parameters and batches.
        tokenizer: the text's tokenizer; its start token starts the sample.
        stepped: called after each dispatch with the number of updates so far.

    Raises:
        RunError: a seed's loss is not finite.
    """
    began = time.monotonic()
    model = make_model(run_config)
    val = jnp.asarray(val_tokens)
    states, keys = init_seeds(model, run_config, seeds)
    parameters = num_params(states.params) // len(seeds)
    states = _train(model, run_config, states, keys, jnp.asarray(train_tokens), stepped)
    each = [jax.tree.map(lambda a, i=i: a[i], states.params) for i in range(len(seeds))]
    losses = [evaluate(model, params, val) for params in each]
    estimates = estimate_losses(model, states.params, val, keys.data, run_config.train.batch_size)
    if not np.isfinite([*losses, *estimates]).all():
        raise RunError(f"rung {name}: a validation loss is not finite: {losses}")
    start = np.full((1, 1), tokenizer.start_id, np.int32)
    ids = generate(model, each[0], start, jax.random.key(seeds[0]), max_new_tokens=SAMPLE_TOKENS)
    return Climbed(
        name=name,
        parameters=parameters,
        losses=losses,
        estimates=estimates.tolist(),
        lecture=ALL[name].lecture,
        seconds=round(time.monotonic() - began, 1),
        sample=tokenizer.decode(np.asarray(ids)[0, 1:]),
    )


def init_seeds(
    model: nn.Module, run_config: RunConfig, seeds: list[int]
) -> tuple[TrainState, Keys]:
    """Initializes states and keys. Each array has a leading axis of seeds."""
    keys = [make_keys(seed) for seed in seeds]
    keys_S = Keys(*(jnp.stack(parts) for parts in zip(*keys, strict=True)))
    return jax.jit(jax.vmap(lambda key: init_state(model, run_config, key)))(keys_S.params), keys_S


def make_seeds_loop(
    model: nn.Module, run_config: RunConfig
) -> Callable[[TrainState, Array, Keys, int], tuple[TrainState, Metrics]]:
    """Makes a function that runs many updates of all seeds in one dispatch.

    On an accelerator, all seeds together take little longer than one, because one small model
    leaves most of the device idle. On a CPU, they take about as long as one after another; the gain
    is one program, one compilation, and no loop over seeds.

    Returns:
        loop(states, tokens, keys, updates) -> (states, metrics), jitted, with `states` donated;
        `metrics` are those of the last update.
    """
    step = make_train_step(model, run_config)

    def update(state: TrainState, tokens: Array, keys: Keys) -> tuple[TrainState, Metrics]:
        batch_size, block_size = run_config.train.batch_size, run_config.model.block_size
        batch = sample_batch(tokens, keys.data, state.step, batch_size, block_size)
        return step(state, batch, keys.dropout)

    update_all = jax.vmap(update, in_axes=(0, None, 0))

    @partial(jax.jit, donate_argnums=0)
    def loop(
        states: TrainState, tokens: Array, keys: Keys, updates: int
    ) -> tuple[TrainState, Metrics]:
        nothing = Metrics(*(jnp.zeros(states.step.shape) for _ in Metrics._fields))
        return jax.lax.fori_loop(
            0, updates, lambda _, carry: update_all(carry[0], tokens, keys), (states, nothing)
        )

    return loop


def estimate_losses(
    model: nn.Module, params_S: Any, tokens: Array, keys_S: Array, batch_size: int
) -> np.ndarray:
    """The lecture's estimate_loss for each seed: the mean over 200 random batches of a split."""
    block_size = config_of(model).block_size

    @jax.jit
    @jax.vmap
    def estimate(params: Any, key: Array) -> Array:
        def loss(i: Array) -> Array:
            batch = sample_batch(tokens, key, i, batch_size, block_size)
            return cross_entropy(forward(model, params, batch.x_BT), batch.y_BT)

        return jax.lax.map(loss, jnp.arange(ESTIMATE_BATCHES)).mean()

    return np.asarray(estimate(params_S, keys_S))


def _train(
    model: nn.Module,
    run_config: RunConfig,
    states: TrainState,
    keys: Keys,
    tokens: Array,
    stepped: Callable[[int], None],
) -> TrainState:
    """Runs all updates, in dispatches of about a second."""
    loop = make_seeds_loop(model, run_config)
    done, updates = 0, 1
    while done < run_config.train.max_iters:
        began = time.monotonic()
        states, metrics = loop(states, tokens, keys, updates)
        losses = np.asarray(metrics.loss)  # waits for the device
        done += updates
        if not np.isfinite(losses).all():
            raise RunError(
                f"rung {run_config.model_name}: a loss is not finite at step {done}: "
                f"{losses.tolist()}"
            )
        stepped(done)
        seconds = (time.monotonic() - began) / updates
        # The first dispatch includes compiling, so its time is misleading: increase step by step.
        updates = min(updates_within(DISPATCH_SECONDS, seconds), 10 * updates)
        updates = min(updates, run_config.train.max_iters - done)
    return states
