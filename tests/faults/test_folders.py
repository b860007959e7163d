"""The folder of a new run: reserved from the start, and removed if no run was started."""

import json
import time
from pathlib import Path

import pytest

import train
from gptjax.store.folders import new_folder, taken

from conftest import TINY, tiny
from processes import start


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_runs_that_begin_in_one_second_have_two_names(here, monkeypatch):
    """The name used to be reserved only after reading the text: two of three runs failed."""
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    with taken(None, "p", False) as a, taken(None, "p", False) as b, taken(None, "p", False) as c:
        assert [str(path) for path in (a, b, c)] == ["runs/p-now", "runs/p-now-2", "runs/p-now-3"]
        assert all(path.is_dir() for path in (a, b, c))


def test_where_no_folder_can_be_made_it_does_not_try_for_ever(here):
    (here / "runs").write_text("a file")
    with pytest.raises(OSError, match="runs"):
        new_folder("p")
    (here / "link").symlink_to(here / "nowhere")
    with pytest.raises(OSError, match="link"):
        new_folder("p", Path("link"))


def test_wrong_input_leaves_no_folder(here, refused):
    refused(train, "--data", "nope.txt")
    refused(train, "--data", "nope.txt", "--out-dir", "new/deep/run")
    assert list(here.iterdir()) == []


def test_wrong_input_leaves_what_was_there(here, refused):
    (here / "mine").mkdir()
    (here / "runs").mkdir()
    (here / "runs" / "note").write_text("mine")
    refused(train, "--data", "nope.txt")
    refused(train, "--data", "nope.txt", "--out-dir", "mine")
    assert sorted(str(p) for p in Path().rglob("*")) == ["mine", "runs", "runs/note"]


def test_a_run_that_fails_later_stays_and_can_be_resumed(here, text_file, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "somewhere")

    flags = tiny("--max-iters", 1, "--data", text_file)
    with monkeypatch.context() as patch:
        patch.setattr("gptjax.app.train.train_and_show", full)
        assert train.main(flags) == 1
    (path,) = (here / "runs").iterdir()
    assert json.loads((path / "config.json").read_text())["config"]["train"]["max_iters"] == 1
    assert train.main(["--resume"]) == 0

    with monkeypatch.context() as patch:
        patch.setattr("gptjax.store.runs.write_config", full)  # tokenizer.json exists by then
        assert train.main([*flags, "--out-dir", "other"]) == 1
    assert not (here / "other").exists()


@pytest.mark.slow
def test_three_at_once(tmp_path, text_file):
    flags = [*TINY, "--data", text_file]
    processes = [start("train.py", *flags, "--seed", n, cwd=tmp_path) for n in range(3)]
    for process in processes:
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 3
    seeds = [json.loads((p / "config.json").read_text())["config"]["seed"] for p in folders]
    assert sorted(seeds) == [0, 1, 2]
