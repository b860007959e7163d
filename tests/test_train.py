import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import train
from gptjax.app import loop
from gptjax.store import listing, manifest, runs
from gptjax.text.shell import scripts

from conftest import TEXT, TINY, tiny
from outcomes import go, metrics

ROOT = Path(train.__file__).parent
SCRIPTS = scripts(ROOT)  # the folder where the tests were started


def test_a_run_holds_what_the_design_says(finished_run):
    names = sorted(p.name for p in finished_run.iterdir())
    assert names == sorted({runs.CHECKPOINTS, *runs.WRITTEN} - {runs.PAGE})
    assert sorted(p.name for p in (finished_run / "checkpoints").iterdir()) == ["3", "6"]
    stored = json.loads((finished_run / "config.json").read_text())["config"]
    assert stored["model_name"] == "gpt"
    assert stored["data_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert stored["model"]["vocab_size"] == len(set(TEXT))
    lines = metrics(finished_run)
    assert [x["step"] for x in lines] == [1, 2, 3, 4, 6]
    assert [x["step"] for x in lines if "val_loss" in x] == [3, 6]
    assert all(x["seconds"] > 0 for x in lines)
    assert lines == sorted(lines, key=lambda x: x["seconds"])
    allowed = {"step", "seconds", "train_loss", "val_loss", "learning_rate", "tokens_per_second"}
    allowed |= {"train_bits_per_byte", "val_bits_per_byte"}
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
    assert f"{SCRIPTS.sample} --out-dir {tmp_path / 'run'}" in out
    assert out.count("    | ") >= 2, "a sample at each evaluation"
    assert "\x1b" not in out, "plain lines where there is no terminal"


def test_without_an_out_dir_each_call_makes_a_new_folder(tmp_path, text_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train.main(tiny("--max-iters", 1, "--data", text_file)) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert all(p.name.startswith("shakespeare-cpu-20") for p in (tmp_path / "runs").iterdir())


def test_eval_only_prints_the_loss_and_writes_nothing(run_copy, capsys):
    before = {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")}
    assert train.main(["--out-dir", str(run_copy), "--eval-only"]) == 0
    printed = capsys.readouterr().out
    assert f"{metrics(run_copy)[-1]['val_loss']:.4f} nats per token" in printed
    assert {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")} == before


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
    for found in listing.list_checkpoints(tmp_path / "run" / "checkpoints")[0]:
        manifest.verify(found.path)
        assert found.val_loss is None or np.isfinite(found.val_loss)


def test_help_shows_every_flag_with_the_presets_value(capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--preset", "shakespeare", "--help"])
    assert caught.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in ("--n-embd int", "[384]", "--learning-rate float", "--qkv-bias", "--resume"):
        assert part in out


def start(tmp_path, text_file, *flags):
    """Starts train.py as a process, with enough steps to be interrupted."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *tiny("--max-iters", 100_000, "--eval-interval", 50_000),
        "--data",
        str(text_file),
        "--out-dir",
        str(tmp_path / "run"),
        *flags,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
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
    assert "saved; continue with" in out
    [found] = listing.list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    manifest.verify(found.path)
    assert metrics(tmp_path / "run")[-1]["step"] <= found.step
    assert found.val_loss is None


def test_a_signal_while_everything_is_compiled_leaves_a_run_to_begin(
    tmp_path, text_file, monkeypatch, capsys
):
    run, begin = tmp_path / "run", loop.compile_and_initialize

    def signalled(*arguments):
        signal.raise_signal(signal.SIGINT)
        return begin(*arguments)

    monkeypatch.setattr(loop, "compile_and_initialize", signalled)
    assert train.main([*TINY, "--data", str(text_file), "--out-dir", str(run)]) == 130
    assert f"stopped before the first step; continue with\n    {SCRIPTS.train} --out-dir {run}" in (
        capsys.readouterr().out
    )
    monkeypatch.undo()
    assert train.main(["--resume", "--out-dir", str(run)]) == 0
    assert metrics(run)[-1]["step"] == 6
