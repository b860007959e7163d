"""Chooses the number of steps for a time budget, from a speed measurement before the run."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from gptjax.app.compiling import compile_and_initialize
from gptjax.backends import sharding
from gptjax.backends.devices import platform
from gptjax.backends.execution import suited
from gptjax.backends.feeding import Ahead, Resident, evaluate, feed
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.fields import FLOAT32_LIMIT, MAX_INT
from gptjax.store import runs
from gptjax.text.splitting import Texts
from gptjax.training import Keys, TrainState, init_state, make_keys, make_train_loop

# Timing continues until one dispatch takes at least this long.
TRIAL_SECONDS = 2.0
# Share of the remaining time to plan for. The rest is for samples, pictures and checkpoints.
USED = 0.95


class Speed(NamedTuple):
    """Measured times on this machine, in seconds.

    Attributes:
        start: compiling the train loop and running its first update.
    """

    start: float
    update: float
    evaluation: float


def with_budget(
    run_config: RunConfig,
    texts: Texts,
    minutes: float,
    began: float,
    say: Callable[[str], None],
    mesh: Mesh | None = None,
) -> RunConfig:
    """Returns the configuration with max_iters set to as many steps as fit into `minutes`.

    The run is then a normal run of that many steps: it keeps nothing else of the measurement.

    Args:
        began: when the process started, by `time.monotonic`.
        mesh: the devices that will train.
    """
    say(f"--budget-minutes {minutes:g}: measuring how fast updates are here")
    speed = measure(run_config, texts, mesh)
    left = began + 60 * minutes - time.monotonic() - speed.start
    steps = steps_within(USED * left, speed, run_config.train.eval_interval)
    say(
        f"{steps:,} steps at {1000 * speed.update:.3g} ms each, with time left for evaluations and "
        "startup"
    )
    return run_config.replace(max_iters=steps)


def check_minutes(minutes: float) -> None:
    """Validates the flag.

    Raises:
        InputError: the budget is not a finite number above 0.
    """
    if not 0 < minutes < FLOAT32_LIMIT:
        raise InputError(f"--budget-minutes ({minutes}) must be a finite number above 0")


def steps_within(seconds: float, speed: Speed, eval_interval: int) -> int:
    """How many updates fit, with an evaluation every `eval_interval` updates and at the end."""
    each = speed.update + speed.evaluation / eval_interval
    return int(min(max((seconds - speed.evaluation) / each, 1), MAX_INT - 1))


def measure(run_config: RunConfig, texts: Texts, mesh: Mesh | None = None) -> Speed:
    """Times a few updates and one evaluation, then discards the state."""
    began = time.monotonic()
    model = suited(runs.make_model(run_config), run_config, platform())
    model, placement = sharding.spread(model, mesh), sharding.placement(mesh)
    update = make_train_loop(model, run_config, placement)
    keys = sharding.everywhere(mesh, make_keys(run_config.seed))
    source, val = feed(run_config, mesh, (texts.train, texts.val))
    with contextlib.closing(source):
        make = partial(init_state, model, run_config)
        state = compile_and_initialize(make, update, source.at(0), keys, mesh)
        state, _ = jax.block_until_ready(update(state, source.at(0), keys, 1))
        start = time.monotonic() - began
        state, update_seconds = _time_updates(update, state, source, keys)
    for _ in range(2):  # the first evaluation compiles
        began = time.monotonic()
        windows = run_config.train.eval_windows
        evaluate(model, state.params, val, max_windows=windows, placement=placement)
    return Speed(start, update_seconds, time.monotonic() - began)


def _time_updates(
    update: Callable[..., Any], state: TrainState, source: Resident | Ahead, keys: Keys
) -> tuple[TrainState, float]:
    """Doubles the number of updates until they take long enough; returns the seconds of one.

    The train loop stops early, with `done` below `count`, if an update is not finite.
    """
    step, count = 1, 1
    while True:
        began = time.monotonic()
        at, until = step, step + count
        while at < until:
            tokens, to = source.at(at), min(until, source.reach(at))
            state, _ = update(state, tokens, keys, to)
            at = to
        jax.block_until_ready(state)
        seconds, done = time.monotonic() - began, int(state.step) - step
        step += done
        if seconds >= TRIAL_SECONDS or done < count:
            return state, seconds / max(done, 1)
        count *= 2
