"""The host's side of training: when to log, evaluate, save and stop. The device never waits for it.

What happens between two looks at the device is `training.make_train_loop`'s; what a person sees is
a `Reporter`'s.
"""

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax import runs
from gptjax.checkpoint import Saver
from gptjax.config import RunConfig, TrainConfig
from gptjax.errors import RunError
from gptjax.training import Metrics, TrainState, evaluate, make_keys, make_train_loop

# A dispatch is kept about this short, in seconds, so that Ctrl-C is answered and progress moves.
# Not shorter: on a CPU each dispatch takes its memory anew, at the cost of about half a step.
DISPATCH_SECONDS = 1.5


class Reporter(Protocol):
    """What the loop tells as it goes; report.py shows it to people."""

    def stepped(self, line: dict[str, Any]) -> None:
        """Training has come to `line["step"]`; the fields are those of metrics.jsonl."""
        ...

    def evaluated(self, line: dict[str, Any], params: Any) -> None:
        """The same, with a val_loss; `params` are those evaluated."""
        ...


class Result(NamedTuple):
    """How the loop ended. `signal` is None unless one stopped it; losses are nats per token."""

    step: int
    val_loss: float | None
    best: float | None
    seconds: float
    signal: int | None


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
    state: TrainState,
    train_tokens: np.ndarray,
    val_tokens: np.ndarray,
    reporter: Reporter,
    stop: StopRequest,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Trains from `state` to max_iters, writing metrics and checkpoints into the run at `path`.

    Raises:
        RunError: a loss or a gradient is not finite, or a checkpoint cannot be written. The
            checkpoints saved before stay.
    """
    cfg = config.train
    began = clock()
    step = int(state.step)
    log = runs.MetricsLog(path / runs.METRICS, step)
    saver = Saver(path / runs.CHECKPOINTS, cfg.keep)
    update = make_train_loop(model, config)
    keys = make_keys(config.seed)
    tokens, val_on_device = jnp.asarray(train_tokens), jnp.asarray(val_tokens)
    tokens_per_update = cfg.batch_size * cfg.gradient_accumulation_steps * config.model.block_size
    seconds_before = log.seconds
    timer = Timer(clock)
    in_flight: tuple[int, Metrics] | None = None
    saved = step
    out_of_time = False

    def seconds() -> float:
        return seconds_before + clock() - began

    def land(flight: tuple[int, Metrics]) -> dict[str, Any]:
        """Waits for a dispatch, and returns what metrics.jsonl may say of its last update."""
        at, metrics = flight
        loss, grad_norm, learning_rate = map(float, metrics)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            saver.wait()
            what = "gradient's norm" if math.isfinite(loss) else "loss"
            value = grad_norm if math.isfinite(loss) else loss
            raise RunError(
                f"the {what} of step {int(state.step) + 1} is {value}: it was not applied; "
                + _kept(path)
            )
        timer.landed(at)
        line = {
            "step": at,
            "seconds": round(seconds(), 3),
            "train_loss": loss,
            "learning_rate": learning_rate,
        }
        if timer.seconds_per_step is not None:
            line["tokens_per_second"] = round(tokens_per_update / timer.seconds_per_step, 1)
        return line

    def note(line: dict[str, Any]) -> None:
        if line["step"] == 1 or line["step"] % cfg.log_interval == 0:
            log.add(**line)
        reporter.stepped(line)

    while step < cfg.max_iters and stop.signal is None and not out_of_time:
        until = _next_look(step, cfg, timer.seconds_per_step)
        state, metrics = update(state, tokens, keys, until)
        if in_flight is not None:
            note(land(in_flight))
        in_flight, step = (until, metrics), until
        out_of_time = 0 < cfg.max_minutes * 60 <= clock() - began
        if step == cfg.max_iters or step % cfg.eval_interval == 0 or out_of_time:
            line = land(in_flight)
            in_flight = None
            windows = cfg.eval_iters * cfg.batch_size
            val_loss = evaluate(model, state.params, val_on_device, max_windows=windows)
            if not math.isfinite(val_loss):
                saver.wait()
                raise RunError(
                    f"the validation loss after step {step} is {val_loss}; {_kept(path)}"
                )
            line |= {"seconds": round(seconds(), 3), "val_loss": val_loss}
            log.add(**line)  # before the checkpoint: a resume drops lines after it, and adds none
            saver.save(state, val_loss)
            saved = step
            reporter.evaluated(line, state.params)
            timer.restart(step)
    if in_flight is not None:
        note(land(in_flight))
    if step != saved:
        saver.save(state, None)
    saver.wait()
    losses = [line["val_loss"] for line in log.lines if "val_loss" in line]
    last = log.lines[-1].get("val_loss") if log.lines else None
    return Result(step, last, min(losses, default=None), seconds(), stop.signal)


class Timer:
    """Seconds per update, from the times at which dispatches land, evaluations left out.

    The first dispatch compiles, so it is not counted.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mark: tuple[int, float] | None = None
        self.seconds_per_step: float | None = None

    def landed(self, step: int) -> None:
        """A dispatch that ended with update `step` has landed."""
        now = self._clock()
        if self._mark is not None and step > self._mark[0]:
            self.seconds_per_step = (now - self._mark[1]) / (step - self._mark[0])
        self._mark = (step, now)

    def restart(self, step: int) -> None:
        """Time until now was spent on something else."""
        self._mark = (step, self._clock())


def _next_look(step: int, cfg: TrainConfig, seconds_per_step: float | None) -> int:
    """Where the next dispatch ends: a log point, an evaluation, the end, or a while from now.

    The first dispatches are one update each, so that the first loss shows as soon as there is one.
    """
    steps = 1 if seconds_per_step is None else max(1, int(DISPATCH_SECONDS / seconds_per_step))
    points = [(step // every + 1) * every for every in (cfg.log_interval, cfg.eval_interval)]
    return min(step + steps, cfg.max_iters, *points)


def _kept(path: Path) -> str:
    return (
        f"the checkpoints in {path} are as they were; a lower --learning-rate, a lower --grad-clip "
        "or a longer warm-up often helps"
    )
