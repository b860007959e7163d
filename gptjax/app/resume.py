"""Resumes a run: which settings may change, what a change does, and where training starts."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from gptjax.app.flags import as_flag
from gptjax.backends.devices import make_deterministic, platform
from gptjax.backends.distributed import ALONE, Peers
from gptjax.backends.sharding import target
from gptjax.config import RunConfig, TrainConfig
from gptjax.errors import InputError
from gptjax.optimizer import learning_rate_schedule
from gptjax.presets import changed
from gptjax.store import listing, runs
from gptjax.store.checkpoint import load_state, newest_whole
from gptjax.training import TrainState, make_keys
from gptjax.version import OTHER_RANDOM_NUMBERS, __version__

# Settings of the training itself. Each change is recorded with its step, and training is exactly
# reproducible from that step on.
RECORDED = (
    "max_iters learning_rate min_lr schedule schedule_start warmup_iters "
    "grad_clip weight_decay beta1 beta2"
).split()
OF_THE_RATE = set(RECORDED[:6])
# Settings of logging, saving and memory. A resume may change only the fields in these lists.
FREE = (
    "eval_interval log_interval keep max_minutes save_interval_minutes skip_nonfinite remat "
    "scan_layers data_on_device"
).split()


def resumed_config(
    path: Path, given: dict[str, Any], eval_only: bool, say: Callable[[str], None]
) -> RunConfig:
    """Returns the stored configuration with the settings given on the command line.

    Raises:
        InputError: a setting contradicts the run.
    """
    stored, tokenizer = runs.read_run(path)
    stored = stored.replace(tokenizer=tokenizer.kind)  # runs of 0.1.0 did not store it
    if stored.deterministic:
        make_deterministic()
    platform()
    for name, value in given.items():
        if name not in (*RECORDED, *FREE, "data") and value != stored.flat(name):
            raise InputError(
                f"{as_flag(name)} {value} contradicts the run in {path}, which has "
                f"{stored.flat(name)}: leave the flag out, or start another run"
            )
    run_config = changed(stored, given)
    before, now = stored.train.max_iters, run_config.train.max_iters
    if now < before and not eval_only:
        raise InputError(
            f"--max-iters {now} is less than the run's {before}: a resume can only extend it"
        )
    if now > before:
        say(f"extending the run and its schedule from {before} to {now} steps")
    return run_config


def restored(
    path: Path,
    run_config: RunConfig,
    warn: Callable[[str], None],
    say: Callable[[str], None],
    mesh: Mesh | None = None,
    peers: Peers = ALONE,
) -> tuple[TrainState | None, int]:
    """Returns the newest whole checkpoint's state, or None, and its number of skipped updates.

    Args:
        mesh: the devices that will train. The state may have been saved on others.
    """
    key = make_keys(run_config.seed).params
    abstract = target(mesh, jax.eval_shape(partial(runs.initial_state, run_config), key))
    folder = path / runs.CHECKPOINTS
    found = newest_whole(folder, lambda p: load_state(p, abstract), tell=warn, peers=peers)
    if peers.leads:
        listing.set_newer_aside(folder, found[0].step if found else -1)
    if not found:
        say("there is no complete checkpoint yet: starting from step 0")
        return None, 0
    say(f"resuming from step {found[0].step}")
    return found[1], found[0].skipped


def is_finished(run_config: RunConfig, step: int, say: Callable[[str], None]) -> bool:
    """Whether a run at `step` is finished; if it is, prints that."""
    if step < run_config.train.max_iters:
        return False
    say(
        f"this run is finished: {step} of {run_config.train.max_iters} steps; "
        "a larger --max-iters extends it"
    )
    return True


def record(
    path: Path,
    run_config: RunConfig,
    step: int,
    rewarm: bool,
    say: Callable[[str], None],
    *,
    is_written: bool = True,
) -> RunConfig:
    """Writes the configuration and its changes at `step`, and prints the changes.

    Args:
        is_written: True in process 0 only.

    Returns:
        The configuration. With `rewarm`, its schedule begins at `step`.
    """
    stored, _ = runs.read_run(path)
    if rewarm:
        run_config = run_config.replace(schedule_start=step)
    differing = {
        name: [stored.flat(name), run_config.flat(name)]
        for name in RECORDED
        if stored.flat(name) != run_config.flat(name)
    }
    changes = runs.read_changes(path)
    version = runs.read_version(path)
    if version in OTHER_RANDOM_NUMBERS and (step == 0 or run_config.model.dropout > 0):
        changes.append({"step": step, "version": [version, __version__]})
        say(
            f"gptjax {version}, which wrote this run, drew other random numbers: from step {step} "
            "on, the run differs from what that version would have computed"
        )
    if differing:
        changes.append({"step": step, **differing})
        what = ", ".join(f"{name} {new} instead of {old}" for name, (old, new) in differing.items())
        say(f"changed from step {step} on: {what}")
        if step and differing.keys() & OF_THE_RATE:
            say(describe_rate(stored.train, run_config.train, step))
    if is_written:
        runs.write_config(path, run_config, changes)
    return run_config


def describe_rate(before: TrainConfig, now: TrainConfig, step: int) -> str:
    """One line about the learning rate before and after a change at `step`."""
    last, following = (
        float(learning_rate_schedule(train)(at)) for train, at in ((before, step - 1), (now, step))
    )
    line = f"the learning rate was {last:.3g} at step {step} and is {following:.3g} at the next"
    if now.schedule_start == step:
        return f"{line}, the first of a warm-up to {now.learning_rate:.3g}"
    if following > 2 * last:
        line += "; --rewarm would restart the schedule from here, with a warm-up"
    return line
