"""The host's side of training: when to log, evaluate, save and stop. The device never waits for it.

What happens between two looks at the device is `training.make_train_loop`'s; what a person sees is
a `Reporter`'s.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.app.health import Health, kept
from gptjax.backends.devices import platform
from gptjax.backends.execution import start
from gptjax.config import RunConfig, TrainConfig
from gptjax.errors import RunError
from gptjax.store import runs
from gptjax.store.checkpoint import Saver
from gptjax.store.metrics import MetricsLog
from gptjax.training import (
    LoopMetrics,
    TrainState,
    evaluate,
    make_keys,
    make_train_loop,
)

# A dispatch is kept about this short, in seconds, so that Ctrl-C is answered and progress moves.
# Not shorter: on a CPU each dispatch takes its memory anew, at the cost of about half a step.
DISPATCH_SECONDS = 1.5
MARKS = 7  # landings that a step's time is the mean over


class Reporter(Protocol):
    """What the loop tells as it goes; report.py shows it to people."""

    def stepped(self, line: dict[str, Any]) -> None:
        """Training has come to `line["step"]`; the fields are those of metrics.jsonl."""
        ...

    def evaluated(self, line: dict[str, Any], params: Any) -> None:
        """The same, with a val_loss; `params` are those evaluated."""
        ...


class Result(NamedTuple):
    """How the loop ended. `signal` is None unless one stopped it; losses are nats per token.

    `skipped` counts the updates that were left out because they were not finite.
    """

    step: int
    val_loss: float | None
    best: float | None
    seconds: float
    signal: int | None
    skipped: int


class StopRequest:
    """Ctrl-C and SIGTERM, turned into a request that the loop heeds after the current dispatch.

    A second signal leaves at once, with what the process does by default; what is saved stays.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
        for waiting in self._before:
            signal.signal(waiting, signal.SIG_DFL)


def train(
    path: Path,
    config: RunConfig,
    model: nn.Module,
    restored: TrainState | None,
    train_tokens: np.ndarray,
    val_tokens: np.ndarray,
    reporter: Reporter,
    stop: StopRequest,
    clock: Callable[[], float] = time.monotonic,
    skipped: int = 0,
) -> Result:
    """Trains to max_iters, writing metrics and checkpoints into the run at `path`.

    Args:
        model: as it is best trained here, see `execution.suited`.
        restored: the state to go on from; None starts with fresh values.
        skipped: updates that were skipped before.

    Raises:
        RunError: an update is not finite (with skip_nonfinite: too many are), or a checkpoint
            cannot be written. The checkpoints saved before stay.
    """
    cfg = config.train
    began = clock()
    step = int(restored.step) if restored else 0
    log = MetricsLog(path / runs.METRICS, step)
    update = make_train_loop(model, config)
    keys = make_keys(config.seed)
    tokens, val_on_device = jnp.asarray(train_tokens), jnp.asarray(val_tokens)
    init = partial(runs.initial_state, config)
    state = restored or start(init, update, tokens, keys, platform())
    tokens_per_update = cfg.batch_size * cfg.gradient_accumulation_steps * config.model.block_size
    seconds_before = log.seconds
    timer = Timer(clock)
    health = Health(path, cfg, step, skipped)
    in_flight: tuple[int, LoopMetrics] | None = None
    saved, saved_at = step, began
    out_of_time = False

    def seconds() -> float:
        return seconds_before + clock() - began

    def land(flight: tuple[int, LoopMetrics], more: bool = False) -> dict[str, Any]:
        """Waits for a dispatch, and returns what metrics.jsonl may say of its last update."""
        at, metrics = flight
        metrics = LoopMetrics(*(x.item() for x in jax.device_get(metrics)))
        health.check(at, int(state.step), metrics)
        timer.landed(at, more)
        line = {"step": at, "seconds": round(seconds(), 3), "learning_rate": metrics.learning_rate}
        if metrics.finite:
            line["train_loss"] = metrics.loss
        if health.skipped:
            line["skipped"] = health.skipped
        if timer.seconds_per_step is not None:
            line["tokens_per_second"] = round(tokens_per_update / timer.seconds_per_step, 1)
        return line

    def note(line: dict[str, Any]) -> None:
        if line["step"] == 1 or line["step"] % cfg.log_interval == 0:
            log.add(**line)
        reporter.stepped(line)

    def save(val_loss: float | None) -> None:
        nonlocal saved, saved_at
        log.flush()
        saver.save(state, val_loss, health.skipped)
        saved, saved_at = step, clock()

    with Saver(path / runs.CHECKPOINTS, cfg.keep) as saver:
        while step < cfg.max_iters and stop.signal is None and not out_of_time:
            until = _next_look(step, cfg, timer.seconds_per_step)
            state, metrics = update(state, tokens, keys, until)
            timer.dispatched()
            if in_flight is not None:
                note(land(in_flight, more=True))
            in_flight, step = (until, metrics), until
            out_of_time = 0 < cfg.max_minutes * 60 <= clock() - began
            if step == cfg.max_iters or step % cfg.eval_interval == 0 or out_of_time:
                line = land(in_flight)
                in_flight = None
                windows = cfg.eval_iters * cfg.batch_size
                val_loss = evaluate(model, state.params, val_on_device, max_windows=windows)
                if not math.isfinite(val_loss):
                    raise RunError(
                        f"the validation loss after step {step} is {val_loss}; {kept(path)}"
                    )
                line |= {"seconds": round(seconds(), 3), "val_loss": val_loss}
                # Before the checkpoint: a resume drops lines after it, and adds none.
                log.add(**line)
                save(val_loss)
                reporter.evaluated(line, state.params)
                timer.restart(step)
            elif 0 < cfg.save_interval_minutes * 60 <= clock() - saved_at:
                note(land(in_flight))
                in_flight = None
                save(None)
                timer.restart(step)
        if in_flight is not None:
            note(land(in_flight))
        if step != saved:
            save(None)
    last = log.last.get("val_loss")
    return Result(step, last, log.best, seconds(), stop.signal, health.skipped)


class Timer:
    """Seconds per update, from the times at which dispatches land, evaluations left out.

    The first dispatch compiles, so it is not counted. Nor is one that lands right after another:
    by the time that is looked at, both have long been done. And where giving the device more waits
    for what it has, a dispatch's time is seen with the one before: so it is the mean of a few, and
    between landings alike; the time from a restart is right only when nothing more is in flight.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: deque[tuple[int, float]] = deque(maxlen=MARKS)
        self._restarted: tuple[int, float] | None = None
        self._dispatched = False
        self.seconds_per_step: float | None = None

    def dispatched(self) -> None:
        """The device was given more to do."""
        self._dispatched = True

    def landed(self, step: int, more: bool = False) -> None:
        """A dispatch that ended with update `step` has landed; `more` is in flight."""
        now, begun = self._clock(), None
        if self._restarted and (not more or self.seconds_per_step is None):
            begun = self._restarted
        elif self._dispatched and self._marks:
            begun = self._marks[0]
        if begun is not None and step > begun[0]:
            self.seconds_per_step = (now - begun[1]) / (step - begun[0])
        self._marks.append((step, now))
        self._dispatched = False

    def restart(self, step: int) -> None:
        """Time until now was spent on something else."""
        self._marks.clear()
        self._restarted = (step, self._clock())


def _next_look(step: int, cfg: TrainConfig, seconds_per_step: float | None) -> int:
    """Where the next dispatch ends: a log point, an evaluation, the end, or a while from now.

    The first dispatches are one update each, so that the first loss shows as soon as there is one.
    """
    steps = 1 if seconds_per_step is None else max(1, int(DISPATCH_SECONDS / seconds_per_step))
    points = [(step // every + 1) * every for every in (cfg.log_interval, cfg.eval_interval)]
    return min(step + steps, cfg.max_iters, *points)
