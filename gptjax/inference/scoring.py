"""The loss of a text under a model, each token with as much context as fits."""

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from gptjax.errors import ConfigError, InputError
from gptjax.loss import summed_loss
from gptjax.model import config_of
from gptjax.numerics import own_numerics


class Score(NamedTuple):
    """The summed loss in nats over `tokens` tokens: all tokens of a text except the first."""

    nats: float
    tokens: int


@own_numerics()
def score(
    model: nn.Module, params: Any, ids: np.ndarray, *, stride: int, batch_size: int = 16
) -> Score:
    """Sums the loss of every token after the first, once each.

    Windows of block_size tokens start every `stride` tokens. Each window counts only the tokens
    that the previous one did not reach. So except in the first window, a token has between
    block_size - stride and block_size tokens of context.

    Args:
        ids: (N,) ids of a text.
        stride: from 1, which is exact and slow, to block_size, which divides the text as the
            evaluation in training does.

    Raises:
        InputError: the text has fewer than two tokens, or the stride is out of range.
    """
    T = config_of(model).block_size
    if not 1 <= stride <= T:
        raise ConfigError("stride", stride, f"must be from 1 to block_size ({T})")
    if len(ids) < 2:
        raise InputError(f"a text of {len(ids)} tokens has no loss: it must have at least 2")
    targets = len(ids) - 1
    starts = [0]
    while starts[-1] + T < targets:
        starts.append(min(starts[-1] + stride, targets - T))
    padded = np.pad(ids, (0, max(0, T - targets)))
    total, reached = 0.0, 0
    for first in range(0, len(starts), batch_size):
        part = starts[first : first + batch_size]
        part += part[-1:] * (batch_size - len(part))  # pad to one shape, which compiles once
        x_BT = np.stack([padded[s : s + T] for s in part])
        y_BT = np.stack([padded[s + 1 : s + T + 1] for s in part])
        counts_BT = np.zeros(y_BT.shape, bool)
        for row, s in enumerate(part):
            end = min(s + T, targets)
            counts_BT[row, reached - s : end - s] = True
            reached = end
        total += float(_loss(model, params, x_BT, y_BT, counts_BT))
    return Score(total, targets)


_loss = jax.jit(summed_loss, static_argnums=0)
