import json
import os
import shutil

import jax
import numpy as np
import pytest

import gptjax
from gptjax.errors import InputError
from gptjax.store import runs
from gptjax.store.metrics import MetricsLog, read_metrics
from gptjax.version import __version__

from conftest import damage_newest


def test_a_run_opens_with_all_that_a_sampler_needs(finished_run):
    run = gptjax.load_run(finished_run)
    assert run.step in (3, 6)
    assert run.config.model.n_embd == 16
    assert run.tokenizer.vocab_size == run.config.model.vocab_size
    prompt = run.tokenizer.encode("fox")[None]
    y = gptjax.generate(run.model, run.params, prompt, jax.random.key(0), max_new_tokens=4)
    assert run.tokenizer.decode(np.asarray(y)[0]).startswith("fox")


def test_best_latest_and_numbered_steps(run_copy):
    manifest = run_copy / runs.CHECKPOINTS / "3" / "manifest.json"
    stored = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(stored | {"val_loss": 0.1}))
    assert runs.load_run(run_copy, "best").step == 3
    assert runs.load_run(run_copy, "latest").step == 6
    assert runs.load_run(run_copy, 3).step == 3
    with pytest.raises(InputError, match=r"no checkpoint of step 5: its steps are 3, 6"):
        runs.load_run(run_copy, 5)


@pytest.mark.parametrize("how", ["flipped", "missing manifest"])
def test_a_damaged_checkpoint_is_told_and_another_used_unless_it_was_asked_for(run_copy, how):
    step = damage_newest(run_copy, how)
    told = []
    assert runs.load_run(run_copy, "latest", told.append).step == 3
    assert len(told) == 1
    assert f"checkpoints/{step}" in told[0]
    with pytest.raises(InputError):
        runs.load_run(run_copy, step)


def test_no_whole_checkpoint_is_said(run_copy):
    shutil.rmtree(run_copy / runs.CHECKPOINTS)
    with pytest.raises(InputError, match="no complete checkpoint"):
        runs.load_run(run_copy)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "expected a JSON object"),
        ("config.json", "[" * 100_000, "not valid JSON"),
        ("config.json", '{"format": 99, "version": "9.9"}', "written by gptjax 9.9"),
        (
            "config.json",
            json.dumps({"format": 1, "version": __version__, "config": {"tomorrow": 1}}),
            "no field 'tomorrow' (a later gptjax wrote the file, or somebody edited it)",
        ),
        ("config.json", '{"format": 1, "config": {"model": {"n_layer": -1}}}', "n_layer (-1)"),
        ("config.json", '{"format": 1, "config": {"model_name": "mamba"}}', "'mamba'"),
        (
            "config.json",
            '{"format": 1, "config": {"model": {"vocab_size": 5}}}',
            "vocab_size in config.json is 5",
        ),
        ("tokenizer.json", "{}", "unknown tokenizer type None"),
        ("tokenizer.json", '{"type": "char", "characters": "ba"}', "distinct and sorted"),
    ],
)
def test_files_that_no_run_writes_are_refused(run_copy, file, content, message):
    (run_copy / file).write_text(content)
    if "mamba" in content:
        stored = json.loads((run_copy / file).read_text())
        vocab = {
            "vocab_size": len(json.loads((run_copy / "tokenizer.json").read_text())["characters"])
        }
        stored["config"]["model"] = vocab
        (run_copy / file).write_text(json.dumps(stored))
    with pytest.raises(InputError) as caught:
        runs.load_run(run_copy)
    assert message in str(caught.value)


def test_a_huge_config_is_not_read(run_copy, monkeypatch):
    monkeypatch.setattr("gptjax.store.runs.MAX_CONFIG_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        runs.load_run(run_copy)


def test_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        runs.load_run(tmp_path / "nope")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        runs.load_run(tmp_path)


def test_the_newest_run_is_the_one_written_to_last(tmp_path, finished_run):
    for name, age in (("a", 10), ("b", 30), ("c", 20)):
        shutil.copytree(finished_run, tmp_path / name)
        for file in (runs.CONFIG, runs.METRICS):
            os.utime(tmp_path / name / file, (1e9 - age, 1e9 - age))
    assert runs.newest_run(tmp_path).name == "a"
    shutil.rmtree(tmp_path / "a" / runs.CHECKPOINTS)
    assert runs.newest_run(tmp_path, with_checkpoint=True).name == "c"
    os.utime(tmp_path / "b" / runs.METRICS)
    assert runs.newest_run(tmp_path).name == "b"
    with pytest.raises(InputError, match="no run under"):
        runs.newest_run(tmp_path / "nope")


def test_removing_a_run_removes_only_what_a_run_writes(run_copy):
    (run_copy / "notes.txt").write_text("mine")
    runs.remove_run(run_copy)
    assert [p.name for p in run_copy.iterdir()] == ["notes.txt"]


def test_metrics_drop_what_comes_after_the_checkpoint_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seconds": 0.5}\n{"step": 3, "seconds": 1.5}\n{"step": 4, "sec')
    log = MetricsLog(path, 2)
    log.add(step=3, seconds=9.0)
    assert [x["step"] for x in read_metrics(path)] == [1, 3]
    assert path.read_text().endswith('{"step": 3, "seconds": 9.0}\n')
    assert MetricsLog(path, 3).seconds == 9.0
    assert MetricsLog(path, 0).seconds == 0.0
