"""A run directory from a stranger: reading it may fail, but only with a clear error."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import tensorstore

import sample
import train
from gptjax.__main__ import main as check
from gptjax.files import MAX_JSON_BYTES
from gptjax.store import checkpoint, listing, manifest, runs
from gptjax.store.manifest import write_manifest
from gptjax.store.metrics import read_metrics

from processes import ENVIRONMENT, ROOT

NEWEST = "checkpoints/6"


def edit(path, **changes):
    """Changes values in config.json, each named by its path, such as model__n_layer."""
    stored = json.loads((path / "config.json").read_text())
    for name, value in changes.items():
        place = stored["config"]
        *parts, last = name.split("__")
        for part in parts:
            place = place[part]
        place[last] = value
    (path / "config.json").write_text(json.dumps(stored))


def seal(folder):
    """Makes a manifest fit the checkpoint's current files, as a forger would."""
    old = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    write_manifest(folder, old["step"], old["val_loss"], 0)


def every_reader_refuses(refused, path, *said):
    """Runs sample.py, train.py --resume and --eval-only: each prints one line, changes nothing."""
    before = {p: p.lstat().st_mtime_ns for p in path.rglob("*")}
    for script, flags in (
        (sample, ["--max-new-tokens", "2"]),
        (train, ["--eval-only"]),
        (train, ["--resume"]),
    ):
        error = refused(script, "--out-dir", path, *flags)
        for part in said:
            assert part in error
    assert {p: p.lstat().st_mtime_ns for p in path.rglob("*")} == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "checkpoints"])
def test_links_out_of_a_run_are_not_followed(run_copy, tmp_path, refused, name):
    """A link must not be used to read, write, delete or rename its target."""
    outside = tmp_path / "outside"
    shutil.move(run_copy / name, outside)
    (run_copy / name).symlink_to(outside)
    there = sorted(outside.rglob("*"))
    every_reader_refuses(refused, run_copy, "is a link")
    if name == "checkpoints":
        refused(train, "--out-dir", run_copy, "--overwrite", "--data", tmp_path / "t")
        (outside / "unused-1").mkdir()
        there = sorted(outside.rglob("*"))
        with pytest.raises(ValueError, match="is a link"):
            checkpoint.Saver(run_copy / name, 1)
        with pytest.raises(ValueError, match="is a link"):
            listing.set_newer_aside(run_copy / name, 1)
    assert sorted(outside.rglob("*")) == there


@pytest.mark.parametrize("place", [NEWEST, f"{NEWEST}/params", f"{NEWEST}/params/_METADATA"])
def test_links_inside_a_checkpoint_are_damage(run_copy, tmp_path, place, capsys):
    outside = tmp_path / "outside"
    shutil.move(run_copy / place, outside)
    (run_copy / place).symlink_to(outside)
    run = runs.load_run(run_copy, "latest")
    assert run.step == 3
    assert check(["verify", str(run_copy)]) == 1
    assert "link" in capsys.readouterr().out or "params" in place


@pytest.mark.parametrize("name", [runs.METRICS, runs.SAMPLES])
def test_lines_in_a_link_are_not_written_through(run_copy, tmp_path, refused, name):
    (tmp_path / "precious").write_text("mine")
    (run_copy / name).unlink()
    (run_copy / name).symlink_to(tmp_path / "precious")
    error = refused(train, "--out-dir", run_copy, "--resume", "--max-iters", 9)
    assert "is a link" in error
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", f"{NEWEST}/manifest.json"])
def test_pipes_and_devices_are_not_waited_for(run_copy, name, refused):
    (run_copy / name).unlink()
    os.mkfifo(run_copy / name)
    if "checkpoints" in name:
        assert runs.load_run(run_copy, "latest").step == 3
    else:
        refused(sample, "--out-dir", run_copy)


def test_a_text_out_of_a_strangers_config_is_a_file_and_the_right_one(run_copy, refused, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for data in (str(tmp_path / "pipe"), "/dev/zero"):
        edit(run_copy, data=data)
        assert "is not a file" in refused(train, "--out-dir", run_copy, "--resume")
    (tmp_path / "secret").write_text("secret " * 100)
    edit(run_copy, data=str(tmp_path / "secret"), data_sha256="")
    assert "another text" in refused(train, "--out-dir", run_copy, "--resume")
    assert "byte 0 is NUL" in refused(train, "--data", "/dev/zero", "--out-dir", tmp_path / "new")


@pytest.mark.parametrize(
    "changes",
    [
        {"model__n_layer": 10**9},
        {"model__n_embd": 2**40},
        {"model__n_embd": 10**400},
        {"model__block_size": 2**62},
        {"model__n_head": -1},
        {"model__init_std": 10**400},
        {"model__dropout": True},
        {"model": []},
        {"train__batch_size": 2**31 - 1},
        {"train__max_iters": "6"},
        {"seed": [1]},
        {"surprise": 1},
    ],
)
def test_configs_that_no_run_has(run_copy, changes, refused):
    edit(run_copy, **changes)
    every_reader_refuses(refused, run_copy, str(run_copy))


def test_sizes_are_compared_with_the_arrays_before_any_is_made(run_copy, refused):
    """This configuration's model would take 40 TB; its checkpoint has 5,000 numbers."""
    edit(run_copy, model__n_embd=2**20, model__block_size=2**20, train__batch_size=1)
    error = refused(sample, "--out-dir", run_copy)
    assert "has no complete checkpoint" in error


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**6,
        '{"a":' * 10**5,
        '{"format": 1, "config": {"seed": NaN}}',
        '{"format": 1, "config": {"seed": -Infinity}}',
        '{"format": 1, "config": {"model": {"dropout": 1e999}}}',
        '{"format": 1, "config": {"seed": ' + "9" * 5000 + "}}",
        "\ufeff{}",
        "\x00",
        '"' + "a" * 2**21,
    ],
    ids=range(9),
)
def test_json_that_no_run_writes(run_copy, text, refused):
    (run_copy / "config.json").write_text(text)
    every_reader_refuses(refused, run_copy, "config.json" if "999" not in text else "")


@pytest.mark.parametrize(
    ("name", "limit"), [("config.json", runs.MAX_CONFIG_BYTES), ("tokenizer.json", MAX_JSON_BYTES)]
)
def test_json_larger_than_any_run_writes_is_not_parsed(run_copy, name, limit, refused):
    """The file by itself would be valid."""
    text = (run_copy / name).read_text()
    (run_copy / name).write_text(text + (limit - len(text)) * " ")
    assert sample.main(["--out-dir", str(run_copy), "--max-new-tokens", "2"]) == 0
    (run_copy / name).write_text(text + (limit - len(text) + 1) * " ")
    every_reader_refuses(refused, run_copy, f"larger than {limit} bytes")


def test_manifests_with_numbers_that_are_none(run_copy):
    manifest = run_copy / NEWEST / "manifest.json"
    stored = json.loads(manifest.read_text())
    for change in (
        {"val_loss": float("nan")},
        {"val_loss": 1e999},
        {"skipped": -1},
        {"skipped": True},
        {"step": 7},
        {"files": []},
    ):
        manifest.write_text(json.dumps(stored | change))
        assert runs.load_run(run_copy, "best").step == 3, change


def test_a_file_beside_those_of_the_manifest_is_damage(run_copy):
    (run_copy / NEWEST / "params" / "checkpoint").write_bytes(pickle.dumps({}))
    with pytest.raises(manifest.DamagedError, match="params/checkpoint does not belong to it"):
        manifest.verify(run_copy / NEWEST)


def test_a_forged_checkpoint_of_another_size_is_refused_before_it_is_read(run_copy, monkeypatch):
    params = run_copy / NEWEST / "params"
    [arrays] = (params / "d").iterdir()
    with arrays.open("r+b") as file:
        file.truncate(65 * 2**20)
    seal(run_copy / NEWEST)
    with pytest.raises(manifest.DamagedError, match="its files have 68"):
        runs.load_run(run_copy, 6)
    for name in ("_METADATA", "array_metadatas/process_0"):
        whole = (params / name).read_bytes()
        (params / name).write_bytes(b" " * (17 * 2**20))
        seal(run_copy / NEWEST)
        with pytest.raises(manifest.DamagedError, match=f"{name} is too large"):
            runs.load_run(run_copy, 6)
        (params / name).write_bytes(whole)


def test_a_forged_chunk_larger_than_its_array_is_refused(run_copy):
    """TensorStore allocates a chunk as a whole, whatever the array's shape."""
    params = run_copy / NEWEST / "params"
    store = tensorstore.KvStore.open(
        {"driver": "ocdbt", "base": {"driver": "file", "path": f"{params}/"}}
    ).result()
    name = "ln_f.scale/zarr.json"
    stored = json.loads(store.read(name).result().value)
    text = json.dumps(stored).replace("[16]", f"[{2**40}]")
    assert text.count(str(2**40)) >= 2
    stored = json.loads(text) | {"shape": [16]}
    store.write(name, json.dumps(stored).encode()).result()
    seal(run_copy / NEWEST)
    with pytest.raises(manifest.DamagedError, match=r"chunks differs|cannot be read"):
        runs.load_run(run_copy, 6)


def test_names_that_lead_out_are_no_keys_of_a_checkpoints_files(tmp_path):
    """TensorStore's own rule keeps forged names inside the checkpoint; this test checks it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("x")
    store = tensorstore.KvStore.open({"driver": "file", "path": f"{tmp_path}/in/"}).result()
    with pytest.raises(ValueError, match="Invalid key"):
        store.read("../secret").result()


def test_metrics_of_a_stranger_are_read_a_line_at_a_time(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 2, "seconds": 0.5}'
    lines = [
        *['{"step": 1, "seconds": NaN}', '{"step": 1, "seconds": 1e999}', "[" * 3000, "{}"],
        *['{"step": true, "seconds": 1}', '{"step": 1, "seconds": 1, "val_loss": "x"}'],
        *["x" * 10**6, good, '{"step": 2, "seconds": 0.6}', '{"step": 1, "seconds": 0.7}'],
        *['{"step": 3, "seconds": 1' + "0" * 400 + "}", '{"step": 4, "seconds": 0.8}'],
    ]
    path.write_text("\n".join(lines))
    assert [x["step"] for x in read_metrics(path)] == [2, 4]


@pytest.mark.slow
def test_hostile_files_take_no_more_memory_than_a_gigabyte(run_copy):
    """In a process with limited memory: JSON of many empty lists, and a line without an end."""
    (run_copy / "tokenizer.json").write_text("[" + "[]," * (16 * 2**20 // 3 - 9) + "[]]")
    script = (
        "import sys, resource; from pathlib import Path; from gptjax import files\n"
        "from gptjax.store import metrics\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))\n"
    )
    for line in (
        "files.read_json(Path(sys.argv[1], 'tokenizer.json'))",
        "print(list(metrics.read_metrics(Path(sys.argv[1], 'metrics.jsonl'))))",
    ):
        with (run_copy / "metrics.jsonl").open("wb") as file:
            file.truncate(2**32)
        done = subprocess.run(
            [sys.executable, "-c", script + line, str(run_copy)],
            env=ENVIRONMENT,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert "MemoryError" not in done.stderr
        assert "expected a JSON object" in done.stderr or done.stdout == "[]\n", done.stderr
