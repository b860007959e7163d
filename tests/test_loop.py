"""The host's side of training, as far as a whole run does not test it."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.app.compiling import compile_and_initialize
from gptjax.app.health import Health
from gptjax.app.pacing import Stages, Timer, updates_within
from gptjax.backends.execution import compile_once_options, suited
from gptjax.model import GPT
from gptjax.training import LoopMetrics, Metrics, init_state, make_keys, make_train_loop

from conftest import tiny_config


def test_the_speed_is_of_dispatches_that_were_waited_for():
    """A run once reported 50 million tokens/s: its last two dispatches had finished earlier."""
    now = 0.0
    timer = Timer(lambda: now)
    timer.dispatched()  # step 1, which compiles
    timer.dispatched()  # steps 2 to 11
    now = 5.0
    timer.landed(1)
    assert timer.seconds_per_update is None
    now = 5.001
    timer.landed(11)
    assert timer.seconds_per_update is None
    timer.restart(11)
    timer.dispatched()
    now = 6.001
    timer.landed(21)
    assert timer.seconds_per_update == 0.1


def test_a_time_that_is_seen_a_dispatch_late_makes_no_estimate_wild():
    """Nine updates, one, nine, one: the time of nine was once taken for that of one, repeatedly."""
    now = 0.0
    timer = Timer(lambda: now)
    step = 0
    for size, late in [(9, 1), (1, 9)] * 6:
        step, now = step + size, now + late * 0.2
        timer.dispatched()
        timer.landed(step)
        if step > 20:
            assert timer.seconds_per_update == pytest.approx(0.2, rel=0.4)


def test_stages_share_all_the_time_that_a_command_takes():
    now = 10.0
    stages = Stages(lambda: now)
    now = 11.0
    stages.at("reading")
    now = 13.0
    stages.at("encoding")
    now = 14.0
    stages.at("encoding")
    now = 20.0
    assert stages.ended() == {"reading": 3.0, "encoding": 7.0}


def test_an_evaluation_does_not_halve_the_speed_that_is_shown():
    """A second dispatch waits for the first and itself; only then is the first seen as finished."""
    now = 0.0
    timer = Timer(lambda: now)
    timer.restart(0)
    timer.dispatched()
    now = 1.0
    timer.landed(10)  # nothing else in flight: 0.1 s per step
    assert timer.seconds_per_update == pytest.approx(0.1)
    timer.restart(10)
    timer.dispatched()  # steps 11 to 20, and at once 21 to 30
    timer.dispatched()
    now = 3.0
    timer.landed(20, more=True)
    assert timer.seconds_per_update == pytest.approx(0.1)
    timer.dispatched()
    now = 4.5
    timer.landed(30, more=True)  # steps 31 to 40 took 1.5 s
    assert timer.seconds_per_update == pytest.approx(0.15)
    now = 4.51
    timer.landed(40)  # and since the evaluation 30 steps took 3.51 s
    assert timer.seconds_per_update == pytest.approx(0.117)


def test_as_many_updates_as_take_the_time_and_never_none():
    assert updates_within(1.5, None) == 1
    assert updates_within(1.5, 0.4) == 3
    assert updates_within(1.5, 60.0) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_start_compiles_the_loop_once_and_makes_the_initial_state(optimizer, count_compiles):
    run_config = tiny_config(optimizer=optimizer)
    model, keys = suited(GPT(run_config.model), run_config, "cpu"), make_keys(3)
    tokens = jnp.arange(100, dtype=jnp.uint8) % run_config.model.vocab_size
    loop = make_train_loop(model, run_config)
    make = partial(init_state, GPT(run_config.model), run_config)
    with count_compiles() as compiled:
        state = compile_and_initialize(make, loop, tokens, keys)
    assert sum("jit(loop)" in line for line in compiled) == 1, compiled
    expected = jax.jit(make, compiler_options=compile_once_options("cpu"))(keys.params)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    jax.block_until_ready(tokens)
    with count_compiles() as compiled:
        state, _ = loop(state, tokens, keys, 2)
    assert compiled == []
    assert state.step == 2


def test_good_metrics_are_taken_in_without_asking_the_newest_state(tmp_path):
    """Asking would wait for the newest dispatch, and the device would then be idle."""
    health = Health(tmp_path, tiny_config().train, step=0, skipped=0)
    values: Any = LoopMetrics(Metrics(1.0, 1.0, 1e-3), True, 0)
    asked = []
    health.watch(5, values, lambda: asked.append(1) or 5)
    assert asked == []
    with pytest.raises(RuntimeError, match="the loss of step 8 is nan"):
        health.watch(
            10, values._replace(last=Metrics(math.nan, 1.0, 1e-3), finite=False), lambda: 7
        )
