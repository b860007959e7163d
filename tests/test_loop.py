"""The host's side of training that a whole run does not show."""

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
