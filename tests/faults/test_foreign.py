"""Known files of systems and people beside a run's files are ignored; unknown files are damage."""

import os
import shutil
from pathlib import Path

import pytest

import train
from gptjax.__main__ import main as command
from gptjax.files import is_foreign
from gptjax.store import listing, manifest, runs

from conftest import TINY
from outcomes import final_state, go, metrics

NAMES = [".DS_Store", "._d", "Thumbs.db", "desktop.ini", ".gitkeep", ".nfs00000000000a1b2c"]
OTHERS = ["notes.txt", ".DS_Store.txt", "DS_Store", ".git", ".gitignore", "_x", ".d", "nfs0"]
NEWEST = "checkpoints/6"


def folders(path: Path) -> list[Path]:
    return [path, *(p for p in path.rglob("*") if p.is_dir())]


def litter(path: Path) -> None:
    """Makes a file of each name in each folder; some begin with the bytes that Finder writes."""
    for folder in folders(path):
        for name in NAMES:
            (folder / name).write_bytes(b"\0\0\0\1Bud1")


def test_the_list_is_that_of_security_md():
    text = (Path(train.__file__).parent / "SECURITY.md").read_text()
    for name in (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".gitkeep", ".nfs*"):
        assert f"`{name}`" in text
    assert all(map(is_foreign, NAMES))
    assert not any(map(is_foreign, OTHERS))


def test_what_systems_leave_in_a_run_is_passed_over(run_copy, capsys):
    """Such a file made a resume rename the newest checkpoint and train its steps again."""
    litter(run_copy)
    assert runs.load_run(run_copy, "latest").step == 6
    assert command(["verify", str(run_copy)]) == 0
    assert "BAD" not in capsys.readouterr().out
    assert train.main(["--out-dir", str(run_copy), "--resume", "--max-iters", "9"]) == 0
    assert "resuming from step 6" in capsys.readouterr().out
    assert [x["step"] for x in metrics(run_copy)][-1] == 9
    assert not list((run_copy / "checkpoints").glob("damaged-*"))


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_file_stays_refused(run_copy, name):
    (run_copy / NEWEST / "params" / name).write_text("x")
    with pytest.raises(manifest.DamagedError, match="does not belong to it"):
        manifest.verify(run_copy / NEWEST)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_name_alone_passes_nothing_but_a_file(run_copy, tmp_path, kind):
    """TensorStore would follow a link, or wait for a pipe, that a forged array names."""
    place = run_copy / NEWEST / "params" / "d" / "._data"
    if kind == "link":
        (tmp_path / "secret").write_text("x")
        place.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
        (place / "data").write_text("x")
    with pytest.raises(manifest.DamagedError, match=r"not a regular file|does not belong to it"):
        manifest.verify(run_copy / NEWEST)


def test_the_bytes_of_a_foreign_file_count(run_copy):
    """Otherwise a forged array could refer to more files than a model of this size has."""
    with (run_copy / NEWEST / "params" / "d" / "._data").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(manifest.DamagedError, match="its files have 68"):
        runs.load_run(run_copy, 6)


def test_a_foreign_file_that_was_there_at_the_save_may_change_and_go(run_copy):
    folder = run_copy / NEWEST
    (folder / "manifest.json").unlink()
    places = [folder / "params" / name for name in NAMES]
    for place in places:
        place.write_text("there at the save")
    manifest.write_manifest(folder, 6, None, 0)
    assert not any(map(is_foreign, manifest.read_manifest(folder)["files"]))
    for place in places:
        place.write_text("changed")
    manifest.verify(folder)
    for place in places:
        place.unlink()
    manifest.verify(folder)


def test_a_manifest_of_before_that_lists_one_is_no_damage(run_copy):
    folder = run_copy / NEWEST
    stored = manifest.read_manifest(folder)
    stored["files"]["params/.DS_Store"] = "0" * 64
    manifest.write_json(folder / "manifest.json", stored)
    manifest.verify(folder)


def test_a_new_run_goes_beside_what_it_does_not_overwrite(tmp_path, text_file):
    """`mkdir run; python train.py --out-dir run | tee run/log.txt`."""
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    for name in ("log.txt", "thesis.tex", *NAMES):
        (path / name).write_text("mine")
        (path / "checkpoints" / ".gitkeep").touch()
    assert go(path, text_file, "--max-iters", "1") == 0
    for name in ("log.txt", "thesis.tex", *NAMES):
        assert (path / name).read_text() == "mine"
    assert go(path, text_file, "--max-iters", "1", "--overwrite") == 0
    assert (path / "log.txt").read_text() == "mine"


@pytest.mark.parametrize("flags", [[], ["--overwrite"]], ids=str)
@pytest.mark.parametrize(
    "name",
    "metrics.jsonl samples.jsonl loss.png page.html tokenizer.json checkpoints config.json".split(),
)
def test_a_new_run_names_what_it_would_overwrite(refused, tmp_path, text_file, name, flags):
    path = tmp_path / "run"
    path.mkdir()
    if name == "checkpoints":
        (path / name).mkdir()
        (path / name / "of another program").touch()
    elif name == "config.json":
        (path / name).symlink_to("nowhere")
    else:
        (path / name).write_text("mine")
    before = sorted(path.rglob("*"))
    error = refused(train, *TINY, "--data", text_file, "--out-dir", path, *flags)
    assert f"would overwrite its {name}" in error
    assert sorted(path.rglob("*")) == before


def test_overwriting_leaves_other_files_among_the_checkpoints(run_copy, text_file):
    mine = run_copy / "checkpoints" / "which-is-best.txt"
    mine.write_text("step 6")
    shutil.copytree(run_copy / NEWEST, run_copy / "checkpoints" / "damaged-6")
    (run_copy / "checkpoints" / "6-before-the-change").mkdir()
    assert go(run_copy, text_file, "--overwrite", "--max-iters", "2") == 0
    assert mine.read_text() == "step 6"
    names = sorted(p.name for p in (run_copy / "checkpoints").iterdir())
    assert names == ["2", "6-before-the-change", "which-is-best.txt"]


def test_a_persons_file_with_a_temporary_ones_beginning_stays(run_copy):
    (run_copy / ".config.json-before-the-change").write_text("mine")
    (run_copy / ".config.json-a1_b2c3d").write_text("half")
    runs.remove_temporaries(run_copy)
    assert (run_copy / ".config.json-before-the-change").exists()
    assert not (run_copy / ".config.json-a1_b2c3d").exists()


def test_foreign_files_in_the_folder_of_checkpoints_are_none(run_copy):
    litter(run_copy / "checkpoints")
    found, problems = listing.list_checkpoints(run_copy / "checkpoints")
    assert [c.step for c in found] == [3, 6]
    assert problems == []
    final_state(run_copy)
