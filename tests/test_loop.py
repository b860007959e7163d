"""The host's side of training that a whole run does not show."""

import pytest

from gptjax.loop import Timer


def test_the_speed_is_of_dispatches_that_were_waited_for():
    """A run once said 50 million tokens/s: its last two dispatches had both long been done."""
    now = 0.0
    timer = Timer(lambda: now)
    timer.dispatched()  # step 1, which compiles
    timer.dispatched()  # steps 2 to 11
    now = 5.0
    timer.landed(1)
    assert timer.seconds_per_step is None
    now = 5.001
    timer.landed(11)
    assert timer.seconds_per_step is None
    timer.restart(11)
    timer.dispatched()
    now = 6.001
    timer.landed(21)
    assert timer.seconds_per_step == 0.1


def test_a_time_that_is_seen_a_dispatch_late_makes_no_estimate_wild():
    """Nine updates, one, nine, one: the nine's time was taken for the one's, and so it went on."""
    now = 0.0
    timer = Timer(lambda: now)
    step = 0
    for size, late in [(9, 1), (1, 9)] * 6:
        step, now = step + size, now + late * 0.2
        timer.dispatched()
        timer.landed(step)
        if step > 20:
            assert timer.seconds_per_step == pytest.approx(0.2, rel=0.4)
