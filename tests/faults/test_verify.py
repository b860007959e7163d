"""`python -m gptjax verify RUN` finds every kind of damage, and so do the scripts."""

import subprocess
import sys

import numpy as np
import pytest

from gptjax.__main__ import main
from gptjax.store import checkpoint, manifest

from conftest import damage_newest
from outcomes import final_state
from processes import ENVIRONMENT


def findings(capsys, path, status):
    capsys.readouterr()
    assert main(["verify", str(path)]) == status
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_a_whole_run_is_good(finished_run, capsys):
    lines = findings(capsys, finished_run, 0)
    assert [line.split()[0] for line in lines] == ["good"] * 5 + ["--resume"]
    assert "metrics.jsonl: 5 lines, each step once and in order" in lines[1]
    assert "samples.jsonl: 2 lines, each step once and in order" in lines[2]
    assert "checkpoints/6: validation loss" in lines[4]
    assert "would continue from step 6; the best is step" in lines[5]


def test_a_run_of_an_earlier_version_has_no_samples_and_is_good(run_copy, capsys):
    (run_copy / "samples.jsonl").unlink()
    assert not any("samples" in line for line in findings(capsys, run_copy, 0))


@pytest.mark.parametrize(
    "how", ["truncated", "flipped", "empty", "missing file", "missing manifest"]
)
def test_damage_is_named_and_the_good_one_too(run_copy, capsys, how):
    damage_newest(run_copy, how)
    lines = findings(capsys, run_copy, 1)
    [bad] = [line for line in lines if line.startswith("BAD")]
    assert "checkpoints/6" in bad
    assert "--resume would continue from step 3" in lines[-1]


def test_a_bit_in_any_file_of_a_checkpoint_is_found(run_copy):
    """Orbax itself does not notice most of this damage."""
    newest = run_copy / "checkpoints" / "6"
    for file in sorted(p for p in newest.rglob("*") if p.is_file() and p.name != "manifest.json"):
        content = bytearray(file.read_bytes())
        if not content:
            continue
        content[len(content) // 3] ^= 4
        whole = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(manifest.DamagedError, match=file.name):
            manifest.verify(newest)
        file.write_bytes(whole)
    manifest.verify(newest)


def test_numbers_that_are_not_finite_are_no_good_checkpoint(run_copy, capsys):
    state = final_state(run_copy)
    wte = {"embedding": state.params["wte"]["embedding"] * np.nan}
    with checkpoint.Saver(run_copy / "checkpoints", 9) as saver:
        saver.save(state.replace(params=state.params | {"wte": wte}), None)
    lines = findings(capsys, run_copy, 1)
    assert any("not finite" in line for line in lines)


def test_metrics_that_are_torn_or_repeat_a_step_are_told(run_copy, capsys):
    path = run_copy / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[-1] + "\n" + '{"step": 9, "sec')
    lines = findings(capsys, run_copy, 1)
    assert lines[1].startswith("BAD")
    assert "2 of 7 lines" in lines[1]


@pytest.mark.parametrize(
    "line", ['{"step": 9, "text": 5}', '{"step": 6, "text": "again"}', '{"step": 9, "te', "[]"]
)
def test_a_line_that_is_no_sample_is_told(run_copy, capsys, line):
    with (run_copy / "samples.jsonl").open("a") as file:
        file.write(line)
    lines = findings(capsys, run_copy, 1)
    assert lines[2].startswith("BAD")
    assert "1 of 3 lines are not samples" in lines[2]


def test_what_a_killed_process_left_is_told_but_no_damage(run_copy, capsys):
    for name in ("tmp-9", "unused-2", "damaged-7"):
        (run_copy / "checkpoints" / name).mkdir()
    lines = findings(capsys, run_copy, 0)
    assert sum(line.startswith("aside") for line in lines) == 3


@pytest.mark.parametrize("argv", [[], ["verify"], ["verify", "nowhere"], ["check", "x"]])
def test_wrong_input(argv, capsys):
    assert main(argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_real_command(run_copy):
    damage_newest(run_copy, "flipped")
    done = subprocess.run(
        [sys.executable, "-m", "gptjax", "verify", str(run_copy)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "BAD   checkpoint" in done.stdout
    assert done.stderr == ""
