"""The page that benchmarks/accelerator.py writes. .ci/run checks that its parts measure."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import accelerator
from benchmarks.accelerator_parts import page, process, runs, sameness
from benchmarks.accelerator_parts.profile import Event, condensed

ROOT = Path(accelerator.ROOT)
DEVICE = {"key": "device", "kind": "NVIDIA H200", "peak_flops": 1e15, "matmul_flops": 8e14}
DEVICE |= {"text": "gpu: 1 x NVIDIA H200", "memory": 2**37, "versions": {"jax": "0.12.0"}}
STEP = {"key": "gptjax", "name": "gptjax, bfloat16", "step": [0.01, 0.02, 0.03], "memory": 9.0}
STEP |= {"compile": 1.0, "attention": "plain"}


@pytest.fixture
def parts(monkeypatch):
    """Replaces the parts by ones that answer at once; the dict gives each module's behaviour."""
    answers = {"device": ([DEVICE], ""), "beside": ([STEP], "")}

    def run(name, settings, seconds, found, folder):
        rows, why = answers.get(name, ([], ""))
        for row in rows:
            found(row)
        if isinstance(why, BaseException):
            raise why
        return why

    monkeypatch.setattr(accelerator, "run", run)
    return answers


def measured(monkeypatch, out, *flags):
    monkeypatch.setattr(sys, "argv", ["accelerator.py", "--out", str(out), *flags])
    status = accelerator.main()
    return status, json.loads((out / page.JSON).read_text()), (out / page.MARKDOWN).read_text()


def test_a_run_that_is_cut_off_leaves_a_page_of_what_it_found(parts, monkeypatch, tmp_path):
    parts["beside"] = [STEP], KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        measured(monkeypatch, tmp_path)
    text = (tmp_path / page.MARKDOWN).read_text()
    assert "# Measured on NVIDIA H200" in text
    assert "| gptjax, bfloat16 | 20.00 | 10.00 to 30.00 | 819,200 |" in text
    assert text.count("**Not whole:** cut off with the whole run") == 1
    results = json.loads((tmp_path / page.JSON).read_text())
    assert results["parts"]["steps"]["rows"] == [STEP]


def test_a_part_that_fails_takes_no_other_along(parts, monkeypatch, tmp_path):
    parts["beside"] = [], "failed (status -6): no kernel image"
    status, results, text = measured(monkeypatch, tmp_path)
    assert status == 1
    assert text.count("**Not whole:** failed (status -6): no kernel image") == 2
    assert set(results["parts"]) == {part.name for part in page.PARTS if not part.flag}


def test_when_the_time_is_over_the_rest_is_left_out(parts, monkeypatch, tmp_path):
    status, _, text = measured(monkeypatch, tmp_path, "--minutes", "0.01")
    assert status == 1  # even the device is unknown
    assert "left out: the time was over" in text
    measured(monkeypatch, tmp_path)
    _, results, _ = measured(monkeypatch, tmp_path, "--minutes", "0.01")
    assert results["parts"]["steps"]["rows"] == [STEP]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--minutes", "nan"], "--minutes (nan) must be above 0"),
        (["--minutes", "-1"], "--minutes (-1.0) must be above 0"),
        ([], "accelerator.json is not of this program"),
        (["--quick"], "accelerator.json has figures that --quick would replace"),
        (["--out", "/dev/null/page"], "/dev/null"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_measured(
    parts, monkeypatch, tmp_path, capsys, flags, says
):
    there = '{"parts": {}}' if "--quick" in flags else '{"runs": []}'
    (tmp_path / page.JSON).write_text(there)
    with pytest.raises(SystemExit, match="2"):
        measured(monkeypatch, tmp_path, *flags)
    assert says in capsys.readouterr().err
    assert (tmp_path / page.JSON).read_text() == there


def test_parts_of_another_day_stay_on_the_page_of_the_same_device(parts, monkeypatch, tmp_path):
    measured(monkeypatch, tmp_path)
    losses = [[250, 5.0, 1.60], [500, 9.5, 1.49], [750, 14.0, 1.52]]
    row = {"key": "seed 1", "name": "seed 1", "flags": "--seed 1", "losses": losses, "wall": 20.0}
    parts["runs"] = [row | {"status": 0}, row | {"key": "2", "name": "seed 2", "status": 0}], ""
    _, results, text = measured(monkeypatch, tmp_path, "--train", "--data", "/home/me/my.txt")
    assert "/home/me" not in text + json.dumps(results)
    assert results["parts"]["steps"]["rows"] == [STEP]
    assert "| seed 1 | 1.4900 | 500 | 1.5200 | 10 |  | 14 | 20 |" in text
    assert "| mean | 1.4900 | | 1.5200 |" in text
    parts["device"] = [DEVICE | {"kind": "NVIDIA A100"}], ""
    _, results, _ = measured(monkeypatch, tmp_path, "--train")
    assert set(results["parts"]) == {"device", "train"}


def test_a_difference_where_none_is_allowed_is_an_error(parts, monkeypatch, tmp_path):
    row = {"key": "a", "what": "a run twice", "difference": 1e-7, "allowed": 0}
    for ok, status in ((False, 1), (True, 0), (None, 0)):
        parts["sameness"] = [row | {"ok": ok}], ""
        assert measured(monkeypatch, tmp_path, "--deterministic")[0] == status


def test_a_part_that_takes_too_long_is_stopped_with_all_that_it_started(monkeypatch, tmp_path):
    """Its first row is kept; its child process, a sleep here, ends with it."""
    program = (
        "import subprocess, sys; print('{}', flush=True); "
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    real = subprocess.Popen
    started = []

    def popen(command, **kwargs):
        started.append(real([sys.executable, "-c", program], **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    rows, began = [], time.monotonic()
    why = process.run("device", {"quick": True}, 1.0, rows.append, tmp_path)
    assert why == "stopped after 1 s"
    assert rows == [{}]
    assert time.monotonic() - began < 30
    assert started[0].returncode == -signal.SIGKILL


def test_a_part_ends_with_the_process_that_started_it():
    """After `kill -9` of the benchmark, a part used to train on for hours."""
    program = (
        "from benchmarks.accelerator_parts.__main__ import end_with_parent; end_with_parent(); "
        "import time; print('started', flush=True); time.sleep(60)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, start_new_session=True, **pipes
    ) as part:
        part.stdout.readline()
        part.stdin.close()
        assert part.wait(timeout=30) == -signal.SIGKILL


def test_the_last_line_says_why_a_part_failed(tmp_path):
    why = process.run("no_such_part", {"quick": True}, 60.0, lambda row: None, tmp_path)
    assert why.startswith("failed (status 1): ModuleNotFoundError")


def test_a_profile_counts_no_time_twice_and_takes_all_blocks_together():
    events = [
        Event("stream", "while.1", "while.1", 0, 110),
        Event("stream", "dot.1", "gemm", 10, 30),
        Event("stream", "dot.2", "gemm", 50, 20),
        Event("stream", "fusion.7", "loop_fusion", 200, 5),
    ]
    places = {"dot.1": "jit(loop)/while/body/block_0/mlp/dot", "fusion.7": "jit(loop)/add"}
    places["dot.2"] = "jit(loop)/while/body/block_11/mlp/dot"
    rows = condensed(events, places)
    found = [(row["kind"], row["place"], row["times"], round(row["seconds"] * 1e9)) for row in rows]
    assert found == [
        ("while", "", 1, 60),
        ("dot", "block_*/mlp/dot", 2, 50),
        ("fusion", "jit(loop)/add", 1, 5),
    ]


def test_every_candidate_is_a_command_that_train_py_takes():
    from gptjax.app.train import new_config, parse
    from gptjax.text.shell import found

    for flags in (*runs.CANDIDATES.values(), runs.TOY, sameness.SMALL, sameness.TWICE):
        run_config = new_config(parse(flags.split(), found()))
        assert run_config.train.min_lr <= run_config.train.learning_rate
