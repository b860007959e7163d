"""Output paths from a user: links, pipes and devices stay what they are."""

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

import sample
from gptjax import files
from gptjax.errors import InputError
from gptjax.text import outputs
from gptjax.text.outputs import check_named, write_named

ROOT = sample.__file__.removesuffix("sample.py")


@pytest.mark.parametrize("target", ["there.txt", "folder/there.txt", "second"])
@pytest.mark.parametrize("before", ["old", None])
def test_a_link_stays_and_its_target_is_written(tmp_path, target, before):
    (tmp_path / "folder").mkdir()
    (tmp_path / "second").symlink_to("folder/end.txt")
    if before:
        (tmp_path / target).write_text(before)
    (tmp_path / "link").symlink_to(target)
    write_named(tmp_path / "link", "new")
    assert os.readlink(tmp_path / "link") == target
    assert (tmp_path / target).read_text() == "new"
    assert (tmp_path / "second").is_symlink()


def test_nothing_is_left_beside_a_link_or_its_target_when_the_disk_fails(tmp_path, monkeypatch):
    (tmp_path / "there.txt").write_text("old")
    (tmp_path / "link").symlink_to("there.txt")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gptjax.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_named(tmp_path / "link", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "there.txt"]
    assert (tmp_path / "there.txt").read_text() == "old"


def test_a_pipe_is_written_into_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_named(pipe, b"x" * 200_000)  # more than a pipe holds
    reader.join(10)
    assert read == [b"x" * 200_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_to_and_stays(tmp_path):
    """Through a link: if this test failed by replacing /dev/null, it would break the machine."""
    (tmp_path / "null").symlink_to(os.devnull)
    write_named(tmp_path / "null", "new")
    assert (tmp_path / "null").is_symlink()
    assert (tmp_path / "null").is_char_device()


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")
def test_a_descriptor_goes_on_where_it_is(tmp_path):
    """`--logprobs /dev/stdout > text.txt`: a second open would overwrite the samples."""
    file = tmp_path / "text.txt"
    with file.open("wb", buffering=0) as out:
        out.write(b"text, ")
        write_named(files.Path(f"/dev/fd/{out.fileno()}"), "log")
        (tmp_path / "link").symlink_to(f"/dev/fd/{out.fileno()}")
        write_named(tmp_path / "link", " and log")
        out.write(b", text")
    assert file.read_text() == "text, log and log, text"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "text.txt"]


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    for write in (write_named, files.write_whole):
        file = tmp_path / write.__name__
        file.write_text("private")
        file.chmod(0o600)
        write(file, "still private")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("call", "number"), [("os.replace", "EBUSY"), ("tempfile.mkstemp", "EACCES")]
)
def test_a_file_whose_folder_takes_no_new_one_is_written_in_place(
    tmp_path, monkeypatch, call, number
):
    """A file that is mounted by itself into a container, or is in another person's folder."""
    file = tmp_path / "mounted.jsonl"
    file.write_text("old and longer")

    def fail(*_, **__):
        raise OSError(getattr(errno, number), "no", str(tmp_path))

    monkeypatch.setattr(f"gptjax.files.{call}", fail)
    write_named(file, "new")
    assert file.read_text() == "new"
    with pytest.raises(OSError, match="no"):
        write_named(tmp_path / "another", "new")


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "link").symlink_to("gone/file")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "gone" / "file", "no such folder"),
        (tmp_path / "link", "no such folder"),
    ):
        with pytest.raises(InputError, match=f"--logprobs .*{said}"):
            check_named(path, "--logprobs")
    for path in (tmp_path / "new", files.Path(os.devnull)):
        check_named(path, "--logprobs")


def test_links_of_a_circle_are_no_endless_search(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert outputs.descriptor_of(tmp_path / "a") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "text", "log"),
    [
        ("--logprobs /dev/stdout > {0}/both", "both", "both"),
        ("--logprobs /dev/stderr > {0}/text 2> {0}/log", "text", "log"),
        ("--logprobs >(cat > {0}/log) > {0}/text; sleep 1", "text", "log"),
        ("--logprobs /dev/fd/3 > {0}/text 3> {0}/log", "text", "log"),
        ("--logprobs {0}/pipe > {0}/text & cat {0}/pipe > {0}/log; wait", "text", "log"),
    ],
)
def test_log_probabilities_go_where_a_shell_says(finished_run, tmp_path, command, text, log):
    os.mkfifo(tmp_path / "pipe")
    line = f"'{sys.executable}' '{ROOT}sample.py' --out-dir '{finished_run}' --max-new-tokens 3 "
    done = subprocess.run(
        ["bash", "-c", line + command.format(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "-" * 15 in (tmp_path / text).read_text()
    assert (tmp_path / log).read_text().count('"logprob"') >= 3
    assert (tmp_path / log).read_text().rstrip().endswith("}")
