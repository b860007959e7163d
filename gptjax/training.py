"""The train step and its loop, and evaluation: pure functions of arrays.

step = make_train_step(model, run_config)         # one update; jit, vmap or scan it as you like
update = make_train_loop(model, run_config)       # many updates in one dispatch, jitted
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from gptjax.config import RunConfig
from gptjax.data import WIDE, Batch, Block, sample_batch
from gptjax.loss import summed_loss
from gptjax.model import config_of
from gptjax.numerics import own_numerics
from gptjax.optimizer import learning_rate_schedule, make_optimizer, trained_mask

Array = jax.Array
Params = Any

# Tokens evaluated at once. More would not be faster.
EVAL_TOKENS = 8192


@struct.dataclass
class TrainState:
    """Everything that an update changes.

    Attributes:
        step: int32 scalar, updates done.
        params: the model's parameters, float32.
        opt_state: Optax's.
    """

    step: Array
    params: Params
    opt_state: Any


class Metrics(NamedTuple):
    """The metrics of one update, as float32 scalars on the device.

    Attributes:
        loss: nats per token, before the update.
        grad_norm: the gradient's global norm, before clipping.
        learning_rate: the rate that the update used.
    """

    loss: Array
    grad_norm: Array
    learning_rate: Array


class LoopMetrics(NamedTuple):
    """The metrics of a dispatch of many updates, as scalars on the device.

    Attributes:
        last: the metrics of the last update.
        finite: whether the last update was finite: its loss, its gradient and the new parameters.
        skipped: int32, how many updates of this dispatch were not finite and were skipped.
    """

    last: Metrics
    finite: Array
    skipped: Array


class Placement(NamedTuple):
    """Sharding constraints for several devices, which change results only by rounding.

    Attributes:
        rows: returns a batch with its sequences divided over the devices.
        state: returns a TrainState, or a tree of parameters or gradients, with each array sharded
            by the rules of sharding.py.
        parts: the number of devices that `rows` divides a batch over.
    """

    rows: Callable[[Any], Any] = lambda batch: batch
    state: Callable[[Any], Any] = lambda state: state
    parts: int = 1


ONE_DEVICE = Placement()


class Keys(NamedTuple):
    """The three streams of random numbers of a run; the key of step s is `fold_in(key, s)`."""

    params: Array
    data: Array
    dropout: Array


@own_numerics()
def make_keys(seed: int) -> Keys:
    """Typed threefry keys, split once from the run's seed, whatever JAX's default generator is."""
    return Keys(*jax.random.split(jax.random.key(seed, impl="threefry2x32"), 3))


@own_numerics()
def init_params(model: nn.Module, key: Array) -> Params:
    """Fresh float32 parameters. `jax.eval_shape` of this costs nothing and gives their shapes."""
    return model.init(key, jnp.zeros((1, 1), jnp.int32), deterministic=True)["params"]


@own_numerics()
def init_state(model: nn.Module, run_config: RunConfig, key: Array) -> TrainState:
    """The state before the first update."""
    return state_of(init_params(model, key), run_config)


@own_numerics()
def state_of(params: Params, run_config: RunConfig) -> TrainState:
    """The state before the first update of a run that starts from these parameters."""
    opt_state = make_optimizer(run_config.train).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def make_train_step(
    model: nn.Module, run_config: RunConfig, placement: Placement = ONE_DEVICE
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]:
    """One update as a pure function, not jitted.

    Returns:
        step(state, batch, key) -> (state, metrics). `batch` holds batch_size *
        gradient_accumulation_steps sequences, taken in micro-batches of batch_size, or of
        micro_batch_size, each with its own dropout masks; `key` is the run's dropout key,
        from which the step derives its own key by its number.
    """
    train_config = run_config.train
    optimizer = make_optimizer(train_config)
    schedule = learning_rate_schedule(train_config)
    micro_batches = train_config.sequences_per_update // train_config.sequences_at_once

    def loss_of(trained: Params, params: Params, batch: Batch, key: Array) -> Array:
        batch, params = placement.rows(batch), _filled(trained, params)
        return summed_loss(model, params, *batch, dropout_key=key) / batch.y_BT.size

    def gradient(params: Params, batch: Batch, key: Array) -> tuple[Array, Params]:
        """The loss, and the gradient of the parameters that are trained."""
        trained = params
        if train_config.trainable != "all":
            mask = trained_mask(params, train_config.trainable)
            trained = jax.tree.map(lambda p, is_trained: p if is_trained else None, params, mask)
        if micro_batches == 1:
            return jax.value_and_grad(loss_of)(trained, params, batch, key)
        micro = jax.tree.map(lambda a: a.reshape(micro_batches, -1, *a.shape[1:]), batch)

        def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
            batch, i = part
            new = jax.value_and_grad(loss_of)(trained, params, batch, jax.random.fold_in(key, i))
            return placement.state(jax.tree.map(jnp.add, total, new)), None

        zero = placement.state(jax.tree.map(jnp.zeros_like, (jnp.zeros(()), trained)))
        total, _ = jax.lax.scan(add, zero, (micro, jnp.arange(micro_batches)))
        return jax.tree.map(lambda a: a / micro_batches, total)

    @own_numerics()
    def step(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
        loss, grads = gradient(state.params, batch, jax.random.fold_in(key, state.step))
        # The optimizer passes over what is frozen; its own zeros would change the sign of a -0.0.
        everywhere = _filled(grads, jax.tree.map(jnp.zeros_like, state.params))
        updates, opt_state = optimizer.update(everywhere, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates)
        params = jax.tree.map(
            lambda g, new, old: old if g is None else new, grads, new, state.params, is_leaf=_is_gap
        )
        metrics = Metrics(loss, optax.tree.norm(grads), schedule(state.step))
        return placement.state(TrainState(state.step + 1, params, opt_state)), metrics

    return step


def _filled(some: Params, rest: Params) -> Params:
    """A tree that has None in some places, with what another tree has in those places."""
    return jax.tree.map(lambda x, y: y if x is None else x, some, rest, is_leaf=_is_gap)


def _is_gap(node: Any) -> bool:
    return node is None


def make_train_loop(
    model: nn.Module, run_config: RunConfig, placement: Placement = ONE_DEVICE
) -> Callable[[TrainState, Array | Block, Keys, Array | int], tuple[TrainState, LoopMetrics]]:
    """Many updates in one dispatch: batches gathered on the device, metrics left there.

    The number of updates is a traced value of a `while_loop`, not a constant of a `scan`: one
    compile serves every interval between log points, and a bit of the result never depends on it.

    Returns:
        loop(state, tokens, keys, until) -> (state, metrics), jitted, `state` donated. It updates
        until `state.step` is `until`, or until an update is not finite: that update is not
        applied, and `metrics` show it. With `skip_nonfinite` the loop continues instead: a skipped
        update leaves parameters and moments unchanged, and counts as a step, so that the next one
        has another batch and the schedule's next rate. In place of `tokens` the loop takes a
        Block that holds the batches of all these updates.
    """
    train_config = run_config.train
    step = make_train_step(model, run_config, placement)
    batch_size = train_config.sequences_per_update
    block_size = run_config.model.block_size

    @partial(jax.jit, donate_argnums=0)
    @own_numerics()
    def loop(
        state: TrainState, tokens: Array | Block, keys: Keys, until: Array | int
    ) -> tuple[TrainState, LoopMetrics]:
        def batch_of(step_number: Array) -> Batch:
            if isinstance(tokens, Block):
                return tokens.batch(step_number)
            return sample_batch(tokens, keys.data, step_number, batch_size, block_size)

        def go_on(carry: tuple[TrainState, LoopMetrics]) -> Array:
            state, metrics = carry
            return (state.step < until) & (metrics.finite | train_config.skip_nonfinite)

        def one(carry: tuple[TrainState, LoopMetrics]) -> tuple[TrainState, LoopMetrics]:
            state, before = carry
            new, metrics = step(state, batch_of(state.step), keys.dropout)
            good = is_finite(metrics, new.params)
            state = placement.state(_choose(good, new, state, skip=train_config.skip_nonfinite))
            skipped = before.skipped + (~good).astype(jnp.int32)
            return state, LoopMetrics(metrics, good, skipped)

        zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
        nothing = LoopMetrics(Metrics(zero, zero, zero), jnp.ones((), bool), none)
        return jax.lax.while_loop(go_on, one, (state, nothing))

    return loop


def is_finite(metrics: Metrics, params: Params) -> Array:
    """Whether an update may be kept: a bool scalar on the device.

    The loss, the gradient and the new parameters must be finite; Adam's moments are finite if the
    gradient's norm is. A step that is too large can make only the parameters infinite, and the next
    checkpoint would save them.
    """
    finite = jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
    for leaf in jax.tree.leaves(params):
        finite &= jnp.isfinite(leaf).all()
    return finite


def _choose(good: Array, new: TrainState, old: TrainState, *, skip: bool) -> TrainState:
    """The new state if `good`, else the old one; with `skip`, the step number advances anyway.

    `good` is known only on the device, so both states exist and each array is selected.
    """
    if not skip:  # the step number too: the loop ends, and a resume tries the update again
        return jax.tree.map(partial(jnp.where, good), new, old)

    def choose(new: Any, old: Any) -> Any:
        # The schedule counts updates on its own, and must come to its end at max_iters.
        return new if is_schedule(new) else jnp.where(good, new, old)

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    chosen = jax.tree.map(choose, new, old, is_leaf=is_schedule)
    return chosen.replace(step=new.step)


@own_numerics()
def evaluate(
    model: nn.Module,
    params: Params,
    tokens: Array,
    *,
    max_windows: int = 0,
    placement: Placement = ONE_DEVICE,
) -> float:
    """Mean loss over a split, the same on every call: consecutive windows, each token once.

    Args:
        tokens: (N,) ids, N >= 2. The last window may be shorter; all N - 1 targets count.
        max_windows: evaluate at most this many windows, spread evenly; 0 for all.

    Returns:
        Nats per token.
    """
    T = config_of(model).block_size
    starts = evaluation_starts(len(tokens), T, max_windows, placement.parts)
    total, count = _loss_sums(model, params, tokens, jnp.asarray(starts, jnp.int32), T, placement)
    return float(total) / float(count)


@own_numerics()
def evaluation_starts(n_tokens: int, T: int, max_windows: int, parts: int) -> np.ndarray:
    """Where the windows of an evaluation start, int64 (batches, B).

    Windows that start at `n_tokens` or later fill the last batch. They hold no targets.

    Args:
        max_windows: as in `evaluate`.
        parts: the number of devices that a batch is divided over.
    """
    n_windows = -(-(n_tokens - 1) // T)
    at = np.arange(n_windows)
    if 0 < max_windows < n_windows:
        if n_tokens < WIDE:
            at = np.asarray(jnp.linspace(0, n_windows - 1, max_windows).round().astype(jnp.int32))
        else:
            at = np.linspace(0, n_windows - 1, max_windows).round().astype(np.int64)
    starts = at.astype(np.int64) * T
    batch_size = max(1, min(len(starts), EVAL_TOKENS // T))
    batch_size = -(-batch_size // parts) * parts
    short = -len(starts) % batch_size
    starts = np.concatenate([starts, np.full(short, n_tokens)])
    return starts.reshape(-1, batch_size)


@partial(jax.jit, static_argnums=(0, 4, 5))
def _loss_sums(
    model: nn.Module, params: Params, tokens: Array, starts: Array, T: int, placement: Placement
) -> tuple[Array, Array]:
    """Summed loss and number of targets over windows of T from `starts` (batches, B)."""

    def add(carry: tuple[Array, Array], starts_B: Array) -> tuple[tuple[Array, Array], None]:
        total, count = carry
        at_BT = placement.rows(starts_B)[:, None] + jnp.arange(T + 1)[None]
        windows = jnp.take(tokens, at_BT, mode="clip").astype(jnp.int32)
        exists_BT = at_BT[:, 1:] < len(tokens)
        loss = summed_loss(model, params, windows[:, :-1], windows[:, 1:], exists_BT)
        return (total + loss, count + exists_BT.sum()), None

    zero = (jnp.zeros(()), jnp.zeros((), jnp.int32))
    return jax.lax.scan(add, zero, starts)[0]


@partial(jax.jit, static_argnums=(0, 5))
@own_numerics()
def add_losses(
    model: nn.Module,
    params: Params,
    windows_SBT: Array,
    targets_SB: Array,
    total: Array,
    placement: Placement = ONE_DEVICE,
) -> Array:
    """Adds the loss of windows that were read on the host, batch by batch as `evaluate` does.

    Args:
        windows_SBT: ids of any integer type, (batches, B, block_size + 1).
        targets_SB: how many targets of each window exist, counted from its start.
        total: float32 scalar, the sum so far.

    Returns:
        The new sum, in nats.
    """

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        windows, targets_B = part
        windows = placement.rows(windows).astype(jnp.int32)
        exists_BT = jnp.arange(windows.shape[1] - 1)[None] < targets_B[:, None]
        return total + summed_loss(model, params, windows[:, :-1], windows[:, 1:], exists_BT), None

    return jax.lax.scan(add, total, (windows_SBT, targets_SB))[0]
