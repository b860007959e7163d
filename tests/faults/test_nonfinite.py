"""Loss spikes: an update that is not finite is never kept, and is skipped only on request."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import train
from gptjax import training
from gptjax.__main__ import main as check
from gptjax.store import listing, manifest

from outcomes import TIMES, assert_same_state, final_state, metrics
from processes import call, one_line, saved_steps, train_flags

# A rate so large that the first update gives infinite parameters from a finite loss and gradient.
EXPLODES = [
    *["--learning-rate", 3e38, "--min-lr", 3e38, "--warmup-iters", 0, "--init-std", 10],
    *["--grad-clip", 0, "--weight-decay", 1e3, "--decay", "all"],
]


@pytest.fixture
def spikes(monkeypatch):
    """Makes the updates of some steps (counted from 1) fail in one of three ways."""
    real = training.make_train_step

    def at(steps, what):
        def make(model, run_config, placement):
            step = real(model, run_config, placement)

            def spiked(state, batch, key):
                new, metrics = step(state, batch, key)
                bad = jnp.isin(new.step, jnp.array(steps))
                if what == "parameters":
                    wte = new.params["wte"]["embedding"]
                    infinite = wte.at[0, 0].set(jnp.where(bad, jnp.inf, wte[0, 0]))
                    return new.replace(
                        params=new.params | {"wte": {"embedding": infinite}}
                    ), metrics
                value = jnp.where(bad, jnp.nan, getattr(metrics, what))
                return new, metrics._replace(**{what: value})

            return spiked

        monkeypatch.setattr(training, "make_train_step", make)

    return at


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("parameters", "the parameters after step 5 are not all finite"),
        pytest.param("loss", "the loss of step 5 is nan", marks=pytest.mark.slow),
        pytest.param("grad_norm", "gradient norm of step 5 is nan", marks=pytest.mark.slow),
    ],
)
def test_a_run_stops_at_a_step_that_is_not_finite_and_goes_on_without_it(
    tmp_path, text_file, spikes, capsys, what, said
):
    spikes([5], what)
    path = tmp_path / "run"
    assert train.main(train_flags(path, text_file)) == 1
    error = one_line(capsys.readouterr().err)
    assert said in error
    assert "--skip-nonfinite" in error
    assert saved_steps(path) == [3], "and no later one"
    assert check(["verify", str(path)]) == 0
    assert train.main(["--out-dir", str(path), "--resume", "--skip-nonfinite"]) == 0
    assert saved_steps(path)[-1] == 6
    assert metrics(path)[-1]["skipped"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "advice", [["--learning-rate", 1e-3], ["--warmup-iters", 100, "--learning-rate", 1e-2]]
)
def test_the_advice_works_when_it_is_followed(tmp_path, text_file, capsys, advice):
    """The error used to name flags that a resume refused."""
    path = tmp_path / "run"
    assert train.main(train_flags(path, text_file, *EXPLODES)) == 1
    error = one_line(capsys.readouterr().err)
    for flag in ("--resume", "--learning-rate", "--grad-clip", "--warmup-iters"):
        assert flag in error
    resume = ["--out-dir", path, "--resume", "--weight-decay", 0.1, *advice]
    assert train.main([str(flag) for flag in resume]) == 0
    assert saved_steps(path)[-1] == 6
    assert np.isfinite(metrics(path)[-1]["val_loss"])


def test_skipped_steps_are_counted_shown_and_resumed_bit_for_bit(
    tmp_path, text_file, spikes, capsys
):
    spikes([2, 4, 5], "loss")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ["--skip-nonfinite", "--eval-interval", 2, "--log-interval", 1]
    assert train.main(train_flags(whole, text_file, *flags)) == 0
    out = capsys.readouterr().out
    assert "3 updates were skipped because they were not finite" in out
    assert "step skipped  (1 skipped so far)" in out
    lines = metrics(whole)
    assert [x.get("skipped") for x in lines] == [None, 1, 1, 2, 3, 3]
    assert ["train_loss" in x for x in lines] == [True, False, True, False, False, True]
    assert all(np.isfinite(x["val_loss"]) for x in lines if "val_loss" in x)
    found, _ = listing.list_checkpoints(whole / "checkpoints")
    assert [(c.step, c.skipped) for c in found][-2:] == [(4, 2), (6, 3)]
    # Adam does not count skipped updates, but the schedule does: it must end at the last step.
    _, adam, *_, rates = final_state(whole).opt_state
    assert (int(adam.count), int(rates.count)) == (3, 6)

    assert train.main(train_flags(parts, text_file, *flags, "--max-minutes", 1e-9)) == 0
    resume = ["--out-dir", str(parts), "--resume", "--max-minutes"]
    assert train.main([*resume, "0"]) == 0
    assert_same_state(parts, whole)
    left_out = *TIMES, "val_loss", "val_bits_per_byte"  # the stopped run made one more evaluation
    assert metrics(parts, *left_out) == metrics(whole, *left_out)


@pytest.mark.slow
def test_when_all_are_skipped_it_stops(tmp_path, text_file, spikes, capsys):
    spikes(range(1, 1000), "loss")
    path = tmp_path / "few"
    assert train.main(train_flags(path, text_file, "--skip-nonfinite")) == 1
    assert "none of the last 6 updates, up to step 6, was finite" in capsys.readouterr().err
    assert saved_steps(path) == [3], "the parameters of the start, which are finite"


@pytest.mark.slow
def test_when_a_hundred_in_a_row_are_skipped_it_stops(tmp_path, text_file, spikes, capsys):
    spikes(range(4, 1000), "loss")
    flags = ["--skip-nonfinite", "--max-iters", 1000, "--eval-interval", 1000]
    assert train.main(train_flags(tmp_path / "many", text_file, *flags)) == 1
    error = one_line(capsys.readouterr().err)
    count, step = map(int, re.findall(r"the last (\d+) updates, up to step (\d+)", error)[0])
    assert 100 <= count < 110
    assert 103 <= step < 115
    assert saved_steps(tmp_path / "many") == []


@pytest.mark.slow
def test_the_real_script_stops_before_infinite_parameters_are_saved(tmp_path, text_file):
    status, _, err = call(
        "train.py", *train_flags(tmp_path / "run", text_file, *EXPLODES, "--eval-interval", 1)
    )
    assert status == 1
    assert re.search(r"step \d+ (is|are) |validation loss after step", one_line(err))
    for found in listing.list_checkpoints(tmp_path / "run" / "checkpoints")[0]:
        manifest.verify(found.path)
        assert found.val_loss is not None
