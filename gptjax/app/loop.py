"""The host's side of training: when to log, evaluate, save and stop.

The device's side is `training.make_train_loop`. A `Reporter` shows progress to the user.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import linen as nn
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh

from gptjax.app.compiling import compile_and_initialize
from gptjax.app.health import Health, kept
from gptjax.app.pacing import Timer, updates_within
from gptjax.app.signals import StopRequest
from gptjax.backends import scanned, sharding
from gptjax.backends.distributed import ALONE, Peers, first_of_any
from gptjax.backends.feeding import evaluate, feed
from gptjax.config import RunConfig
from gptjax.errors import RunError
from gptjax.loss import bits_per_byte
from gptjax.store import runs
from gptjax.store.checkpoint import Saver
from gptjax.store.metrics import MetricsLog
from gptjax.training import (
    LoopMetrics,
    TrainState,
    init_state,
    make_keys,
    make_train_loop,
)

# A dispatch takes about this many seconds, short enough to respond to Ctrl-C and to show progress.
# It is not shorter, because on a CPU each dispatch allocates its memory again, which costs about
# half an update.
DISPATCH_SECONDS = 1.5


class Reporter(Protocol):
    """Receives the loop's progress. report.py shows it to the user."""

    def stepped(self, line: dict[str, Any]) -> None:
        """Training has reached `line["step"]`. The fields are those of metrics.jsonl."""
        ...

    def evaluated(self, line: dict[str, Any], params: Any) -> None:
        """Like `stepped`, after an evaluation: `line` has the val_loss of `params`."""
        ...


class Silent:
    """The reporter of a process that shows nothing, because process 0 does."""

    def stepped(self, line: dict[str, Any]) -> None:
        """Shows nothing."""

    def evaluated(self, line: dict[str, Any], params: Any) -> None:
        """Shows nothing."""


class Result(NamedTuple):
    """How the loop ended. Losses are in nats per token.

    `signal` is the signal that stopped the loop, or None. `skipped` counts the updates that were
    skipped because they were not finite.
    """

    step: int
    val_loss: float | None
    best: float | None
    seconds: float
    signal: int | None
    skipped: int


class Dispatch(NamedTuple):
    """Updates given to the device: the last one's step, and their metrics, not yet read."""

    until: int
    metrics: LoopMetrics


class Loop:
    """One training run, on the host: trains to max_iters, writing metrics and checkpoints.

    The device gets many updates at a time; this is a dispatch. Reading a dispatch's metrics waits
    until it is finished, so the host first gives the device the next dispatch, and then reads the
    metrics of the one before. The device thus always has work, and metrics lag one dispatch behind.
    """

    def __init__(
        self,
        path: Path,
        run_config: RunConfig,
        model: nn.Module,
        restored: TrainState | None,
        tokens: tuple[np.ndarray, np.ndarray],
        reporter: Reporter,
        stop: StopRequest,
        *,
        bytes_per_token: tuple[float, float] = (1.0, 1.0),
        skipped: int = 0,
        is_saved: bool = True,
        mesh: Mesh | None = None,
        peers: Peers = ALONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Compiles the updates, and initializes the state unless one was restored.

        Args:
            path: the run's folder.
            model: the model as it is executed on this machine; see `execution.suited`.
            restored: the state to start from; None initializes a new one.
            tokens: the training split and the validation split.
            bytes_per_token: of the training split, and of the validation split.
            skipped: updates that earlier processes of this run skipped.
            is_saved: the run itself can restore the state that training starts from; if False, the
                state is saved before the first update.
            mesh: the devices that train; None means one device.
            peers: the processes that train. Each has its own clock and receives its own signals,
                so decisions that must be the same in all processes are made by `peers.agree`.
        """
        self._config = run_config.train
        self._path, self._model = path, model
        self._reporter, self._stop, self._clock = reporter, stop, clock
        self._began = clock()
        self._step = int(restored.step) if restored else 0
        self._peers = peers
        self._log = MetricsLog(path / runs.METRICS if peers.leads else None, self._step)
        self._seconds_before = self._log.seconds
        self._bytes_per_token = bytes_per_token
        self._tokens_per_update = run_config.tokens_per_update
        self._health = Health(path, self._config, self._step, skipped)
        self._timer = Timer(clock)
        self._saver = Saver(path / runs.CHECKPOINTS, self._config.keep, peers)

        self._placement = sharding.placement(mesh)
        self._update = make_train_loop(model, run_config, self._placement)
        self._keys = sharding.everywhere(mesh, make_keys(run_config.seed))
        self._feed, self._val_tokens = feed(run_config, mesh, tokens)
        self._on_disk = scanned.on_disk(run_config)
        if restored:
            self._state = scanned.in_memory(run_config, mesh)(restored)
        else:
            init = partial(init_state, model, run_config)
            try:
                self._state = compile_and_initialize(
                    init, self._update, self._feed.at(0), self._keys, mesh
                )
            except BaseException:
                self._feed.close()  # otherwise `run` closes it
                raise
        self._in_flight: Dispatch | None = None
        self._is_out_of_time = False
        self._saved_step = self._step if is_saved else None
        self._saved_at = self._began

    def run(self) -> Result:
        """Trains until max_iters, a signal or the time limit.

        Raises:
            RunError: an update is not finite (with skip_nonfinite: too many are), or a checkpoint
                cannot be written. Earlier checkpoints stay.
        """
        with closing(self._feed), self._saver:
            if self._saved_step is None:
                self._save(None)
            while not self._is_over():
                self._dispatch()
                if self._should_evaluate():
                    self._evaluate()
                elif self._should_save():
                    self._land_and_report()
                    self._save(None)
                    self._timer.restart(self._step)
            self._land_and_report()
            if self._step != self._saved_step:
                self._save(None)
        return Result(
            step=self._step,
            val_loss=self._log.last.get("val_loss"),
            best=self._log.best,
            seconds=self._seconds(),
            signal=self._agreed_signal(),
            skipped=self._health.skipped,
        )

    def _is_over(self) -> bool:
        is_done = self._step >= self._config.max_iters
        return is_done or self._is_out_of_time or self._agreed_signal() is not None

    def _agreed_signal(self) -> int | None:
        """The signal that this process received, or else the first one of another process."""
        return self._peers.agree(self._stop.signal, first_of_any)

    def _should_evaluate(self) -> bool:
        is_last = self._step == self._config.max_iters or self._is_out_of_time
        return is_last or self._step % self._config.eval_interval == 0

    def _should_save(self) -> bool:
        return self._is_past(self._config.save_interval_minutes, self._saved_at)

    def _is_past(self, minutes: float, began: float) -> bool:
        """Whether `minutes` have passed since `began`. If `minutes` is 0, they never have."""
        return minutes > 0 and self._peers.agree(self._clock() - began >= 60 * minutes)

    def _dispatch(self) -> None:
        """Gives the device its next updates, then reports its previous ones."""
        until = self._peers.agree(self._next_look())
        before = self._in_flight
        self._state, metrics = self._update(
            self._state, self._feed.at(self._step), self._keys, until
        )
        self._timer.dispatched()
        if before is not None:
            self._report(self._landed(before, more=True))
        self._in_flight, self._step = Dispatch(until, metrics), until
        # Checked only once per dispatch: if the time ran out between two checks, the last
        # evaluation would be skipped.
        self._is_out_of_time = self._is_past(self._config.max_minutes, self._began)

    def _next_look(self) -> int:
        """The step at which the next dispatch ends.

        It ends at a log point, at an evaluation, or after about `DISPATCH_SECONDS`. If the text is
        read from the host, it may end sooner, at the last batch that has been read. The first
        dispatches are one update each, so that the first loss appears at once.
        """
        train_config, step = self._config, self._step
        some = updates_within(DISPATCH_SECONDS, self._timer.seconds_per_update)
        intervals = (train_config.log_interval, train_config.eval_interval)
        points = [(step // interval + 1) * interval for interval in intervals]
        return min(step + some, train_config.max_iters, self._feed.reach(step), *points)

    def _landed(self, dispatch: Dispatch, more: bool = False) -> dict[str, Any]:
        """Waits for a dispatch, and returns a line for metrics.jsonl about its last update.

        Args:
            more: another dispatch is in flight already.
        """
        metrics: LoopMetrics = jax.tree.map(lambda x: x.item(), jax.device_get(dispatch.metrics))
        # Read the state's step only if an update failed, because reading waits for all updates.
        self._health.watch(dispatch.until, metrics, lambda: int(self._state.step))
        self._timer.landed(dispatch.until, more)
        line = {
            "step": dispatch.until,
            "seconds": round(self._seconds(), 3),
            "learning_rate": metrics.last.learning_rate,
        }
        if metrics.finite:
            loss = float(metrics.last.loss)
            line["train_loss"] = loss
            line["train_bits_per_byte"] = round(bits_per_byte(loss, self._bytes_per_token[0]), 6)
        if self._health.skipped:
            line["skipped"] = self._health.skipped
        if self._timer.seconds_per_update is not None:
            rate = self._tokens_per_update / self._timer.seconds_per_update
            line["tokens_per_second"] = round(rate, 1)
        return line

    def _land_and_report(self) -> None:
        """Waits for the dispatch in flight, if there is one, and reports it."""
        if self._in_flight is not None:
            self._report(self._landed(self._in_flight))
            self._in_flight = None

    def _report(self, line: dict[str, Any]) -> None:
        if line["step"] == 1 or line["step"] % self._config.log_interval == 0:
            self._log.add(**line)
        self._reporter.stepped(line)

    def _evaluate(self) -> None:
        """Waits for the dispatch in flight, evaluates, and saves."""
        assert self._in_flight is not None
        line, self._in_flight = self._landed(self._in_flight), None
        params = self._state.params
        windows = self._config.eval_windows
        val_loss = evaluate(
            self._model,
            params,
            self._val_tokens,
            max_windows=windows,
            placement=self._placement,
        )
        if not math.isfinite(val_loss):
            raise RunError(
                f"the validation loss after step {self._step} is {val_loss}; {kept(self._path)}"
            )
        bits = round(bits_per_byte(val_loss, self._bytes_per_token[1]), 6)
        line |= {"seconds": round(self._seconds(), 3), "val_loss": val_loss}
        line["val_bits_per_byte"] = bits
        # Log before saving: a resume drops later lines of the log, and cannot add a missing one.
        self._log.add(**line)
        self._save(val_loss)
        params = self._on_disk(params)
        if self._peers.count > 1:  # process 0 generates the sample, and needs all parameters
            params = process_allgather(params, tiled=True)
        self._reporter.evaluated(line, params)
        self._timer.restart(self._step)

    def _save(self, val_loss: float | None) -> None:
        self._log.flush()
        self._saver.save(self._on_disk(self._state), val_loss, self._health.skipped)
        self._saved_step, self._saved_at = self._step, self._clock()

    def _seconds(self) -> float:
        """Seconds spent on this run, earlier processes included."""
        return self._seconds_before + self._clock() - self._began
