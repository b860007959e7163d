"""The disk fills up, turns read-only, or the checkpoints vanish while a run saves."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

import sample
import train
from gptjax import __main__ as command
from gptjax import files
from gptjax.files import write_whole
from gptjax.store import checkpoint, listing, manifest, runs
from gptjax.store.metrics import MetricsLog, read_metrics

from conftest import TEXT
from outcomes import metrics
from processes import ENVIRONMENT, ROOT, one_line, saved_steps, start, train_flags
from processes import wait_for as wait

# A separate mount in a separate namespace: 600 kB, and read-only on request.
CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True
    ).returncode
    == 0
)
needs_mount = pytest.mark.skipif(not CAN_MOUNT, reason="this user may mount nothing")


@pytest.mark.slow
def test_a_full_disk_is_told_with_its_path_and_leaves_the_earlier_checkpoints_whole(run_copy):
    """Limits the size of files to less than a checkpoint needs, as a quota does.

    The picture is not drawn: it would fail first and hide the error of the background thread.
    """
    path, before = run_copy, saved_steps(run_copy)
    script = (
        "import sys, resource, train; from gptjax.app import report\n"
        "report.draw_losses = lambda path: None\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "sys.exit(train.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--out-dir", path, "--resume", "--max-iters", "30"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"could not be written to {path / runs.CHECKPOINTS}" in one_line(done.stderr)
    assert "File too large" in done.stderr
    assert saved_steps(path)[-1] == before[-1]
    for found in listing.list_checkpoints(path / runs.CHECKPOINTS)[0]:
        manifest.verify(found.path)
    assert metrics(path)[-1]["step"] < 30
    assert sample.main(["--out-dir", str(path), "--max-new-tokens", "3"]) == 0
    assert train.main(["--out-dir", str(path), "--resume"]) == 0
    assert [x["step"] for x in metrics(path)] == sorted({x["step"] for x in metrics(path)})
    assert saved_steps(path)[-1] == 30


def test_checkpoints_that_vanish_are_told_at_the_next_save(tmp_path, text_file):
    path = tmp_path / "run"
    process = start(
        "train.py",
        *train_flags(path, text_file, "--max-iters", 10**6, "--eval-interval", 10**6),
        "--save-interval-minutes",
        0.005,
    )
    wait(process, lambda: saved_steps(path))
    os.rename(path / runs.CHECKPOINTS, tmp_path / "vanished")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert str(path / runs.CHECKPOINTS) in one_line(err)
    for found in listing.list_checkpoints(tmp_path / "vanished")[0]:
        manifest.verify(found.path)


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_disk_of_its_own(tmp_path, text_file, trouble):
    """A real file system's ENOSPC and EROFS, between one save and the next."""
    disk, outside = tmp_path / "disk", tmp_path / "outside"
    for folder in (disk, outside):
        folder.mkdir()
    flags = train_flags(disk / "run", text_file, "--max-iters", 10**6, "--eval-interval", 10**6)
    then = {
        "full": f"dd if=/dev/zero of={disk}/zeros bs=1k count=100000 2>/dev/null || true",
        # The remount fails while a file is open for writing, so repeat it.
        "read-only": f"until mount -o remount,ro {disk} 2>/dev/null; do :; done",
    }[trouble]
    python = f"{sys.executable} {ROOT / 'train.py'}"
    script = f"""
        mount -t tmpfs -o size=3m tmpfs {disk}
        {python} {" ".join(flags)} --save-interval-minutes 0.005 2>{outside}/err &
        until ls {disk}/run/checkpoints 2>/dev/null | grep -q '^[0-9]'; do sleep 0.05; done
        {then}
        wait $!
        echo $? >{outside}/status
        cp -r {disk}/run {outside}/run
    """
    subprocess.run(["unshare", "-rm", "sh", "-c", script], env=ENVIRONMENT, check=True, timeout=120)
    err = (outside / "err").read_text()
    says, statuses = {
        "full": ("No space left on device", [1]),
        "read-only": ("Read-only file system", [1, 2]),  # 2 if metrics.jsonl failed first
    }[trouble]
    assert str(disk / "run") in one_line(err)
    assert says in err
    assert int((outside / "status").read_text()) in statuses
    found, problems = listing.list_checkpoints(outside / "run" / runs.CHECKPOINTS)
    assert found
    assert problems == []
    for one in found:
        manifest.verify(one.path)
    metrics(outside / "run")
    assert (
        train.main(["--resume", "--out-dir", str(outside / "run"), "--max-minutes", "0.001"]) == 0
    )


@needs_mount
@pytest.mark.slow
def test_a_disk_that_fills_while_preparing(tmp_path):
    """One line, nothing half-written under a final name; with room, the same command goes on."""
    source, outside = tmp_path / "a", tmp_path / "outside"
    source.mkdir()
    for i in range(150):
        (source / f"{i}.txt").write_text(f"{i}: {TEXT}")
    disk = tmp_path / "disk"
    for folder in (disk, outside):
        folder.mkdir()
    python = f"{sys.executable} -m gptjax prepare {source} --out {disk}/out --tokenizer byte"
    script = f"""
        mount -t tmpfs -o size=400k tmpfs {disk}
        {python} >{outside}/said 2>{outside}/err
        echo $? >{outside}/status
        ls {disk}/out >{outside}/names
        mount -o remount,size=9m {disk}
        {python} >>{outside}/said 2>>{outside}/err || exit 1
        cp -r {disk}/out {outside}/out
    """
    subprocess.run(["unshare", "-rm", "sh", "-c", script], env=ENVIRONMENT, check=True, timeout=120)
    err = (outside / "err").read_text()
    assert len(err.splitlines()) == 1, err
    assert "No space left on device" in err
    assert f"{disk}/out/" in err
    assert (outside / "status").read_text() == "1\n"
    assert not {"train.bin", "val.bin", "meta.json"} & set((outside / "names").read_text().split())
    said = (outside / "said").read_text()
    assert "the same command continues from here" in said
    flags = ["prepare", str(source), "--out", str(tmp_path / "whole"), "--tokenizer", "byte"]
    assert command.main(flags) == 0
    for name in ("train.bin", "val.bin", "meta.json"):
        assert (outside / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_line_of_metrics_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """If the disk takes only half of a write, the written half is removed."""
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.add(step=1, seconds=0.5)
    real = os.write

    def half(descriptor, data):
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", half)
        with pytest.raises(OSError, match=r"No space left.*metrics\.jsonl"):
            log.add(step=2, seconds=1.0)
    log.add(step=3, seconds=2.0)
    assert [x["step"] for x in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_whole(path, "before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*config\.json"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_metrics_are_on_the_disk_before_the_checkpoint_that_follows_them(
    tmp_path, text_file, monkeypatch
):
    """Otherwise a power cut could leave a checkpoint whose steps have no lines in metrics.jsonl."""
    flushed = []

    def flush(self):
        flushed.append([x["step"] for x in read_metrics(self._path)][-1])

    seen = []
    real = checkpoint.Saver.save

    def save(self, state, *rest):
        seen.append((int(state.step), flushed[-1]))
        real(self, state, *rest)

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        patch.setattr(MetricsLog, "flush", flush)
        patch.setattr("gptjax.app.loop.Saver.save", save)
        assert train.main(train_flags(tmp_path / "run", text_file)) == 0
    assert seen == [(3, 3), (6, 6)]
