"""Whether a run's updates are finite, and when to give it up.

The device checks each update and applies none that is not (training.py); this is told of it.
"""

import math
from collections.abc import Callable
from pathlib import Path

from gptjax.config import TrainConfig
from gptjax.errors import RunError
from gptjax.training import LoopMetrics

# A spike of the loss is over after a few updates; parameters that are lost stay lost.
MAX_SKIPPED_IN_A_ROW = 100


class Health:
    """Watches whether updates are finite, and ends a run whose are not.

    Attributes:
        skipped: updates skipped in all.
    """

    def __init__(self, path: Path, train_config: TrainConfig, step: int, skipped: int) -> None:
        self.skipped = skipped
        self._path = path
        self._config = train_config
        self._began = self._step = step
        self._in_a_row = 0

    def watch(self, at: int, metrics: LoopMetrics, reached: Callable[[], int]) -> None:
        """Takes in the metrics of the dispatch that should have come to step `at`.

        Args:
            metrics: as Python's numbers.
            reached: returns the step of the last update that was kept.

        Raises:
            RunError: an update is not finite and none may be skipped, or only such were made.
        """
        if not metrics.finite and not self._config.skip_nonfinite:
            step, last = reached() + 1, metrics.last
            if not math.isfinite(last.loss):
                what = f"the loss of step {step} is {last.loss}"
            elif not math.isfinite(last.grad_norm):
                what = f"the gradient's norm of step {step} is {last.grad_norm}"
            else:
                what = f"the parameters after step {step} are not all finite"
            raise RunError(
                f"{what}: it was not applied; {kept(self._path)}, and --skip-nonfinite goes on "
                "without such a step"
            )
        updates, self._step = at - self._step, at
        self.skipped += int(metrics.skipped)
        self._in_a_row = self._in_a_row + updates if metrics.skipped == updates else 0
        nothing_else = self._in_a_row == at - self._began and at == self._config.max_iters
        if self._in_a_row >= MAX_SKIPPED_IN_A_ROW or (nothing_else and updates):
            raise RunError(
                f"none of the last {self._in_a_row} updates, up to step {at}, was finite: there is "
                f"no use in skipping more; {kept(self._path)}"
            )


def kept(path: Path) -> str:
    """What to say after a number that is not finite: what is left, and what helps."""
    return (
        f"the checkpoints in {path} are as they were; --resume with a lower --learning-rate, a "
        "lower --grad-clip or larger --warmup-iters often helps"
    )
