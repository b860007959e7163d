"""Watches whether a run's updates are finite, and decides when to stop the run.

The device checks each update and does not apply it if it is not finite (training.py). This module
reads the results of these checks.
"""

import math
from collections.abc import Callable
from pathlib import Path

from gptjax.config import TrainConfig
from gptjax.errors import RunError
from gptjax.training import LoopMetrics

# A loss spike is over after a few updates. Longer than that, the parameters do not recover.
MAX_SKIPPED_IN_A_ROW = 100


class Health:
    """Watches whether updates are finite, and stops the run when they are not.

    Attributes:
        skipped: total number of skipped updates.
    """

    def __init__(self, path: Path, train_config: TrainConfig, step: int, skipped: int) -> None:
        self.skipped = skipped
        self._path = path
        self._config = train_config
        self._began = self._step = step
        self._in_a_row = 0

    def watch(self, at: int, metrics: LoopMetrics, reached: Callable[[], int]) -> None:
        """Checks the metrics of the dispatch that should have ended at step `at`.

        Args:
            metrics: Python numbers, not arrays.
            reached: returns the step of the last update that was applied.

        Raises:
            RunError: an update is not finite and none may be skipped, or too many in a row are not.
        """
        if not metrics.finite and not self._config.skip_nonfinite:
            step, last = reached() + 1, metrics.last
            if not math.isfinite(last.loss):
                what = f"the loss of step {step} is {last.loss}"
            elif not math.isfinite(last.grad_norm):
                what = f"the gradient norm of step {step} is {last.grad_norm}"
            else:
                what = f"the parameters after step {step} are not all finite"
            raise RunError(
                f"{what}: the update was not applied; {kept(self._path)}; --skip-nonfinite skips "
                "such updates"
            )
        updates, self._step = at - self._step, at
        self.skipped += int(metrics.skipped)
        self._in_a_row = self._in_a_row + updates if metrics.skipped == updates else 0
        nothing_else = self._in_a_row == at - self._began and at == self._config.max_iters
        if self._in_a_row >= MAX_SKIPPED_IN_A_ROW or (nothing_else and updates):
            raise RunError(
                f"none of the last {self._in_a_row} updates, up to step {at}, was finite: skipping "
                f"more would not help; {kept(self._path)}"
            )


def kept(path: Path) -> str:
    """The advice after a number that is not finite: which checkpoints remain, and what helps."""
    return (
        f"the checkpoints in {path} are unchanged; --resume with a lower --learning-rate, a "
        "lower --grad-clip or larger --warmup-iters often helps"
    )
