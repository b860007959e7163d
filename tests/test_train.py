import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest

import train
from gptjax import checkpoint, corpus, execution, runs
from gptjax.execution import suited
from gptjax.training import init_state, make_keys

from conftest import TEXT, TINY, damage_newest

ROOT = Path(train.__file__).parent


def go(path, text_file, *flags):
    """Trains a tiny run in this process."""
    return train.main([*TINY, "--data", str(text_file), "--out-dir", str(path), *flags])


def final_state(path):
    """The newest checkpoint's whole state."""
    config, _ = runs.read_run(path)
    model = runs.make_model(config)
    abstract = jax.eval_shape(lambda k: init_state(model, config, k), make_keys(0).params)
    newest = checkpoint.list_checkpoints(path / runs.CHECKPOINTS)[0][-1]
    return checkpoint.load_state(newest.path, abstract)


def assert_same_state(a, b):
    for x, y in zip(*(jax.tree.leaves(final_state(p)) for p in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def metrics(path, *left_out):
    return [
        {k: v for k, v in line.items() if k not in left_out}
        for line in map(json.loads, (path / runs.METRICS).read_text().splitlines())
    ]


TIMES = ("seconds", "tokens_per_second")


def test_a_run_holds_what_the_design_says(finished_run):
    names = sorted(p.name for p in finished_run.iterdir())
    assert names == ["checkpoints", "config.json", "loss.png", "metrics.jsonl", "tokenizer.json"]
    assert sorted(p.name for p in (finished_run / "checkpoints").iterdir()) == ["3", "6"]
    stored = json.loads((finished_run / "config.json").read_text())["config"]
    assert stored["model_name"] == "gpt"
    assert stored["data_sha256"] == corpus._sha256(TEXT.encode())
    assert stored["model"]["vocab_size"] == len(set(TEXT))
    lines = metrics(finished_run)
    assert [x["step"] for x in lines] == [1, 2, 3, 4, 6]
    assert [x["step"] for x in lines if "val_loss" in x] == [3, 6]
    assert all(x["seconds"] > 0 for x in lines)
    assert lines == sorted(lines, key=lambda x: x["seconds"])
    allowed = {"step", "seconds", "train_loss", "val_loss", "learning_rate", "tokens_per_second"}
    assert all(set(x) <= allowed for x in lines)


def test_the_picture_is_a_picture(finished_run):
    image = matplotlib.image.imread(finished_run / "loss.png")
    assert image.shape[0] > 300
    assert len(np.unique(image[..., :3].reshape(-1, 3), axis=0)) > 20


def test_what_is_printed(tmp_path, text_file, capsys):
    assert go(tmp_path / "run", text_file) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "cpu: 1 x" in out
    assert "final validation loss:" in out
    assert f"python sample.py --out-dir {tmp_path / 'run'}" in out
    assert out.count("    | ") >= 2, "a sample at each evaluation"
    assert "\x1b" not in out, "plain lines where there is no terminal"


def test_without_an_out_dir_each_call_makes_a_new_folder(tmp_path, text_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train.main([*TINY, "--max-iters", "1", "--data", str(text_file)]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert all(p.name.startswith("shakespeare-cpu-20") for p in (tmp_path / "runs").iterdir())


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tmp_path, text_file, finished_run):
    """Stopped after step 4, between two evaluations, as a signal stops it."""

    class StoppedAtFour(train.Report):
        def stepped(self, line):
            super().stepped(line)
            if line["step"] == 3:  # step 4 is in flight by then
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Report", StoppedAtFour)
        patch.setattr("gptjax.loop.DISPATCH_SECONDS", 0.0)
        assert go(tmp_path / "run", text_file, "--eval-interval", "6") == 143
    assert int(final_state(tmp_path / "run").step) == 4
    assert train.main(["--out-dir", str(tmp_path / "run"), "--resume", "--eval-interval", "3"]) == 0
    assert_same_state(tmp_path / "run", finished_run)
    stopped = [x for x in metrics(tmp_path / "run", *TIMES, "val_loss") if x["step"] != 3]
    whole = [x for x in metrics(finished_run, *TIMES, "val_loss") if x["step"] != 3]
    assert stopped == whole


@pytest.mark.parametrize("how", ["truncated", "missing manifest", "gone"])
def test_resuming_uses_the_newest_whole_checkpoint(run_copy, finished_run, how, capsys):
    damage_newest(run_copy, how)
    assert train.main(["--out-dir", str(run_copy), "--resume"]) == 0
    captured = capsys.readouterr()
    assert "resuming from step 3" in captured.out
    assert ("checkpoints/6" in captured.err) == (how != "gone")
    assert_same_state(run_copy, finished_run)
    assert metrics(run_copy, *TIMES) == metrics(finished_run, *TIMES)


def test_resuming_before_the_first_checkpoint_starts_from_step_0(run_copy, finished_run, capsys):
    shutil.rmtree(run_copy / runs.CHECKPOINTS)
    assert train.main(["--out-dir", str(run_copy), "--resume"]) == 0
    assert "starting from step 0" in capsys.readouterr().out
    assert_same_state(run_copy, finished_run)


def test_resuming_a_finished_run_says_so(run_copy, capsys):
    before = (run_copy / "metrics.jsonl").read_bytes()
    assert train.main(["--out-dir", str(run_copy), "--resume"]) == 0
    assert "this run is finished: 6 of 6 steps" in capsys.readouterr().out
    assert (run_copy / "metrics.jsonl").read_bytes() == before


def test_a_run_with_muon_goes_on_bit_for_bit(tmp_path, text_file):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ["--optimizer", "muon", "--min-lr", "0.004"]  # a constant rate: max_iters differs
    assert go(whole, text_file, *flags) == 0
    assert go(parts, text_file, *flags, "--max-iters", "3") == 0
    assert train.main(["--out-dir", str(parts), "--resume", "--max-iters", "6"]) == 0
    assert_same_state(whole, parts)
    muon = final_state(whole).opt_state[1].inner_states["muon"]
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(muon))


def test_a_larger_max_iters_extends_a_run(run_copy, capsys):
    assert train.main(["--out-dir", str(run_copy), "--resume", "--max-iters", "9"]) == 0
    assert "extending the run and its schedule from 6 to 9" in capsys.readouterr().out
    assert [x["step"] for x in metrics(run_copy)] == [1, 2, 3, 4, 6, 8, 9]
    assert runs.read_run(run_copy)[0].train.max_iters == 9
    assert sorted(p.name for p in (run_copy / "checkpoints").iterdir())[-1] == "9"


def test_remat_is_how_a_run_is_computed_and_a_resume_may_change_it(
    tmp_path, text_file, finished_run, monkeypatch
):
    used = []

    def spy(model, config, platform):
        found = suited(model, config, platform)
        used.append(found[0].execution.remat)
        return found

    monkeypatch.setattr(train, "suited", spy)
    run = tmp_path / "run"
    assert go(run, text_file, "--remat") == 0
    ours, plain = ([x["train_loss"] for x in metrics(p)] for p in (run, finished_run))
    assert len(ours) == 5
    np.testing.assert_allclose(ours, plain, rtol=1e-5)
    assert train.main(["--out-dir", str(run), "--resume", "--max-iters", "9", "--no-remat"]) == 0
    assert used == [True, False]


def test_micro_batches_are_chosen_once_and_belong_to_the_run(
    tmp_path, text_file, monkeypatch, refused
):
    run = tmp_path / "run"
    monkeypatch.setattr(execution, "CACHE", 2 * 16 * 4 * 16 * 4)  # two sequences of TINY
    assert go(run, text_file) == 0
    monkeypatch.undo()
    assert runs.read_run(run)[0].train.micro_batch_size == 2
    flags = ["--out-dir", str(run), "--resume", "--max-iters", "7"]
    assert "has 2" in refused(train, *flags, "--micro-batch-size", "0")
    assert train.main(flags) == 0
    assert runs.read_run(run)[0].train.micro_batch_size == 2


def test_resume_without_out_dir_takes_the_newest_run(tmp_path, finished_run, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run, tmp_path / "runs" / "mine")
    assert train.main(["--resume"]) == 0
    assert "run: runs/mine" in capsys.readouterr().out


def test_the_same_text_at_another_path_resumes(run_copy, tmp_path, text_file):
    moved = shutil.move(text_file, tmp_path / "moved.txt")
    assert (
        train.main(
            ["--out-dir", str(run_copy), "--resume", "--data", str(moved), "--max-iters", "7"]
        )
        == 0
    )


def test_eval_only_prints_the_loss_and_writes_nothing(run_copy, capsys):
    before = {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")}
    assert train.main(["--out-dir", str(run_copy), "--eval-only"]) == 0
    printed = capsys.readouterr().out
    assert f"{metrics(run_copy)[-1]['val_loss']:.4f} nats per token" in printed
    assert {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")} == before


def test_max_minutes_evaluates_saves_and_can_go_on(tmp_path, text_file, finished_run, capsys):
    assert go(tmp_path / "run", text_file, "--max-minutes", "1e-9") == 0
    assert "--max-minutes is over" in capsys.readouterr().out
    assert metrics(tmp_path / "run")[-1]["val_loss"] > 0
    assert train.main(["--out-dir", str(tmp_path / "run"), "--resume", "--max-minutes", "0"]) == 0
    assert_same_state(tmp_path / "run", finished_run)


def test_overwrite_replaces_a_run_and_nothing_else(run_copy, text_file):
    (run_copy / "notes.txt").write_text("mine")
    assert go(run_copy, text_file, "--overwrite", "--max-iters", "2") == 0
    assert (run_copy / "notes.txt").read_text() == "mine"
    assert [p.name for p in (run_copy / "checkpoints").iterdir()] == ["2"]


def test_overwrite_loses_nothing_when_the_input_is_wrong(run_copy, tmp_path, refused):
    before = sorted(run_copy.rglob("*"))
    refused(train, "--out-dir", run_copy, "--overwrite", "--data", tmp_path / "nope.txt")
    refused(train, "--out-dir", run_copy, "--overwrite", "--n-layer", 0)
    assert sorted(run_copy.rglob("*")) == before


def test_a_loss_that_is_not_finite_stops_with_the_checkpoint_kept(tmp_path, text_file, capsys):
    status = go(
        tmp_path / "run",
        text_file,
        "--learning-rate",
        "1e38",
        "--min-lr",
        "1e38",
        "--grad-clip",
        "0",
        "--eval-interval",
        "1",
        "--warmup-iters",
        "0",
        "--max-iters",
        "40",
    )
    assert status == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "of step" in err or "after step" in err
    assert "nan" in err or "inf" in err
    for found in checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")[0]:
        checkpoint.verify(found.path)
        assert found.val_loss is None or np.isfinite(found.val_loss)


def test_help_shows_every_flag_with_the_presets_value(capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--preset", "shakespeare", "--help"])
    assert caught.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in ("--n-embd int", "[384]", "--learning-rate float", "--qkv-bias", "--resume"):
        assert part in out


def start(tmp_path, text_file, *flags):
    """train.py as a process of its own, with enough steps to be interrupted."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *TINY,
        "--max-iters",
        "100000",
        "--eval-interval",
        "50000",
        "--data",
        str(text_file),
        "--out-dir",
        str(tmp_path / "run"),
        *flags,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(tmp_path, text_file, number, status):
    process = start(tmp_path, text_file)
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 2):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err == ""
    assert "saved; go on with" in out
    [found] = checkpoint.list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    checkpoint.verify(found.path)
    assert metrics(tmp_path / "run")[-1]["step"] <= found.step
    assert found.val_loss is None
