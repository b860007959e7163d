"""Texts from a pipe: a run trains on them, and a resume needs them again."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sample
import train
from gptjax.app import sample_flags
from gptjax.app import train as training
from gptjax.lecture import __main__ as lecture
from gptjax.store import runs
from gptjax.text.reading import is_stream
from gptjax.text.shell import found

from conftest import TEXT, tiny
from processes import ENVIRONMENT, ROOT

NEEDS_AGAIN = "the text comes through a pipe: --resume will need it again, as --data FILE"
SHORT = tiny("--max-iters", 2, "--eval-interval", 2)


@pytest.fixture
def standard_input(monkeypatch):
    def put(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return put


def test_a_text_from_standard_input_is_told_at_once_and_resumed_with_a_file(
    tmp_path, text_file, standard_input, capsys, refused
):
    path = str(tmp_path / "run")
    standard_input(TEXT)
    assert train.main([*SHORT, "--data", "-", "--out-dir", path]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == NEEDS_AGAIN
    assert any(line.startswith("text: a pipe, ") for line in said)
    assert runs.read_run(Path(path))[0].data == "-"
    more = ["--out-dir", path, "--resume", "--max-iters"]
    for flags in ([*more, 4], ["--out-dir", path, "--eval-only"]):
        error = refused(train, *flags)
        assert "the run's text came through a pipe" in error
        assert "--data FILE" in error
    standard_input(TEXT + "!")
    assert "another text than the run's" in refused(train, *more, 4, "--data", "-")
    standard_input(TEXT)
    assert train.main([*more, "3", "--data", "-"]) == 0
    assert train.main([*more, "4", "--data", str(text_file)]) == 0
    assert runs.read_run(Path(path))[0].data == str(text_file)
    assert train.main([*more, "5"]) == 0, "the file is the run's text from then on"


def test_what_can_be_read_once_only_is_a_stream(tmp_path, text_file):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/stdin")
    (tmp_path / "text").symlink_to(text_file)
    streams = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/3", tmp_path / "pipe"]
    for given in (*streams, tmp_path / "link", "/dev/zero"):
        assert is_stream(str(given)), given
    for given in (
        text_file,
        tmp_path / "text",
        tmp_path,
        tmp_path / "gone",
        "a\0b",
        "./shakespeare",
    ):
        assert not is_stream(str(given)), given


def test_a_text_that_has_moved_is_asked_for(run_copy, tmp_path, text_file, refused):
    """The advice used to offer 'shakespeare' for the corpus, which a resume would have refused."""
    moved = tmp_path / "moved.txt"
    run_config, _ = runs.read_run(run_copy)
    runs.write_config(run_copy, run_config.replace(data=str(tmp_path / "gone.txt")))
    error = refused(train, "--out-dir", run_copy, "--resume")
    assert "gone.txt, the text that the run names, is not there; give it with --data FILE" in error
    text_file.rename(moved)
    assert train.main(["--out-dir", str(run_copy), "--resume", "--data", str(moved)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("data", ["<(zcat text.txt.gz)", "- < text.txt", "/dev/stdin < text.txt"])
def test_a_shells_pipes_train_and_resume(tmp_path, data):
    (tmp_path / "text.txt").write_text(TEXT)
    command = f"'{sys.executable}' '{ROOT}/train.py'"
    flags = " ".join(SHORT)
    script = (
        f"gzip -k text.txt; set -e\n{command} {flags} --out-dir run --data {data}\n"
        f"{command} --out-dir run --resume --max-iters 3 --data {data}\n"
        f"{command} --out-dir run --resume --max-iters 4 --data <(cat text.txt)\n"
        f"{command} --out-dir run --resume --max-iters 5 --data text.txt\n"
        f"{command} --out-dir run --resume --max-iters 6\n"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(NEEDS_AGAIN)
    assert done.stdout.count(NEEDS_AGAIN) == 3


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    """A shell expands `--data ~/x`, but not `--data=~/x`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for parse, names in (
        (lambda argv: training.parse(argv, found()), ["data", "out_dir"]),
        (lambda argv: lecture.parse(argv, "lecture"), ["out", "data", "run"]),
    ):
        for name in names:
            assert parse([f"--{name}=~/x"]) == {name: f"{tmp_path}/x"}
            assert parse([f"--{name}=a~/x"]) == {name: "a~/x"}
    assert training.parse(["--data=shakespeare"], found()) == {"data": "shakespeare"}
    for name in ("out_dir", "from_huggingface", "prompt_file", "logprobs", "score"):
        asked = sample_flags.parse([f"--{name}=~/x"], found())
        [part] = [part for part in asked if hasattr(part, name)]
        assert getattr(part, name) == f"{tmp_path}/x"
    assert sample_flags.parse(["--prompt=~/x"], found()).samples.prompt == ("~/x",)


def test_a_run_under_a_tilde(tmp_path, text_file, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompt.txt").write_text("fox")
    assert train.main([*SHORT, f"--data=~/{text_file.name}", "--out-dir=~/run"]) == 0
    assert runs.read_run(tmp_path / "run")[0].data == str(text_file)
    capsys.readouterr()
    flags = ["--out-dir=~/run", "--prompt-file=~/prompt.txt", "--max-new-tokens=3"]
    assert sample.main([*flags, "--logprobs=~/log"]) == 0
    assert capsys.readouterr().out.count("fox") == 1
    assert (tmp_path / "log").exists()


def test_samples_of_a_text_with_tabs_start_at_a_new_line(tmp_path, capsys, monkeypatch):
    """Samples of training and samples without a prompt: both used to start from id 0, the tab."""
    starts, generate = [], training.generate
    monkeypatch.setattr(
        training, "generate", lambda *a, **k: starts.append(int(a[2][0, 0])) or generate(*a, **k)
    )
    text = tmp_path / "text.txt"
    text.write_text("a\tb\n" * 300)
    path = str(tmp_path / "run")
    flags = tiny("--max-iters", 60, "--eval-interval", 60, "--learning-rate", 0.02, "--dropout=0")
    assert train.main([*flags, "--data", str(text), "--out-dir", path]) == 0
    assert set(starts) == {1}
    capsys.readouterr()
    assert sample.main(["--out-dir", path, "--temperature", "0", "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out.startswith("a\tb\na\tb\n")
