"""Pictures, displays and logs only show a run: if one of them fails, the run continues."""

import io
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import pytest

from gptjax.app import report, streams
from gptjax.app.streams import Lasting
from gptjax.lecture import pictures
from gptjax.store import runs

from outcomes import go, metrics
from processes import ENVIRONMENT, call, saved_steps, start, train_flags

DRAW = report.draw_losses  # conftest replaces it


def is_picture(path: Path) -> bool:
    return matplotlib.image.imread(path).shape[0] > 100


def test_pictures_are_drawn_whatever_matplotlib_is_told(tmp_path):
    """A shell that a notebook started may have this backend set, without its module."""
    (tmp_path / "rc").write_bytes(b"\xff\xfe no text")
    script = f"""
import pwd
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
from pathlib import Path
from gptjax.lecture.pictures import draw_sinusoids
draw_sinusoids(Path({str(tmp_path / "a.png")!r}))
"""
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "HOME"} | {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MATPLOTLIBRC": str(tmp_path / "rc"),
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert is_picture(tmp_path / "a.png")


def test_a_persons_settings_are_neither_used_nor_changed(tmp_path, finished_run):
    with matplotlib.rc_context({"text.usetex": True, "font.size": 900.0}):
        pictures.draw_sinusoids(tmp_path / "a.png")
        DRAW(finished_run)
        assert matplotlib.rcParams["font.size"] == 900
    pictures.draw_sinusoids(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert is_picture(finished_run / runs.PICTURE)


@pytest.mark.parametrize("part", ["picture", "sample", "progress"])
def test_what_cannot_be_shown_is_one_warning(tmp_path, text_file, monkeypatch, capsys, part):
    def fail(*_, **__):
        raise RuntimeError("no\nuse")

    places = {
        "picture": "gptjax.app.report.draw_losses",
        "sample": "gptjax.app.train.generate",
        "progress": "gptjax.app.report._loss",
    }
    monkeypatch.setattr(places[part], fail)
    assert go(tmp_path / "run", text_file) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: warning: ")
    assert f"{part} cannot be shown" in line
    assert "RuntimeError: no use" in line
    assert saved_steps(tmp_path / "run") == [3, 6]


def test_colours_that_are_forced_write_plain_lines_where_there_is_no_terminal(
    tmp_path, text_file, monkeypatch, capsys
):
    """The output used to be 12 kB of cursor movements in ten seconds, without a single step."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CLICOLOR_FORCE"):
        monkeypatch.setenv(name, "1")
    assert go(tmp_path / "run", text_file) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "step 1/6  loss" in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_unless_it_is_a_dumb_one(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert report.make_console(Terminal()).is_terminal
    monkeypatch.setenv("TERM", "dumb")
    assert not report.make_console(Terminal()).is_terminal


def test_a_reader_that_leaves_does_not_cost_the_training(tmp_path, text_file):
    """`python train.py | head -2` used to end with status 1 without saving."""
    path = tmp_path / "run"
    with start("train.py", *train_flags(path, text_file)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0
    assert metrics(path)[-1]["step"] == 6
    assert saved_steps(path) == [3, 6]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_is_one_warning(tmp_path, text_file):
    path = tmp_path / "run"
    with open("/dev/full", "w") as full:
        process = start("train.py", *train_flags(path, text_file), stdout=full)
        _, err = process.communicate()
    assert process.returncode == 0
    assert err.splitlines() == [
        "train.py: warning: the output can no longer be written: No space left on device"
    ]
    assert saved_steps(path) == [3, 6]


@pytest.mark.slow
def test_text_that_nobody_reads_ends_quietly_and_text_that_cannot_be_written_in_one_line(
    finished_run, tmp_path
):
    flags = ["--out-dir", finished_run, "--max-new-tokens", 60, "--num-samples", 40]
    with start("sample.py", *flags, "--batch-size", 1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert "rror" not in process.stderr.read()
        assert process.wait() == 1
    if Path("/dev/full").exists():
        (tmp_path / "text.txt").write_text("the quick brown fox")
        score = [*flags[:2], "--score", tmp_path / "text.txt"]
        for arguments in (flags, score):  # the second does not flush its lines
            with open("/dev/full", "w") as full:
                process = start("sample.py", *arguments, stdout=full)
                _, err = process.communicate()
            assert process.returncode == 1
            assert "sample.py: error: input or output: No space left on device" in err
            assert "Exception ignored" not in err


def test_a_stream_is_lost_once_and_tells_of_it_once():
    class Failing(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    told = []
    stream = Lasting(Failing(), told.append)
    for _ in range(3):
        print("text", file=stream, flush=True)
    assert told == ["the output can no longer be written: No space left on device"]
    closed = io.StringIO()
    closed.close()
    print("text", file=Lasting(closed, told.append), flush=True)
    streams.settle(closed)
    assert len(told) == 1


def test_without_a_picture_the_lecture_has_its_page(tmp_path, monkeypatch, text_file, capsys):
    from gptjax.lecture import __main__ as lecture
    from gptjax.lecture import results

    def draw(*_):
        raise RuntimeError("no use")

    monkeypatch.setattr(results, "draw", draw)
    out = tmp_path / "out"
    flags = ["--rungs", "bigram", "--seeds", "1", "--max-iters", "2", "--data", str(text_file)]
    assert lecture.main([*flags, "--out", str(out)]) == 0
    assert "the picture cannot be shown" in capsys.readouterr().err
    assert {p.name for p in out.iterdir()} == {results.JSON, results.PAGE}


@pytest.mark.slow
def test_notes_and_text_in_one_pipe_are_not_mixed(finished_run):
    """The note used to appear in the middle of the sample."""
    flags = ["--out-dir", finished_run, "--max-new-tokens", 40, "--seed", 3, "--num-samples", 3]
    _, text, notes = call("sample.py", *flags)
    _, both, _ = call("sample.py", *flags, stderr=subprocess.STDOUT)
    assert both == notes + text
    assert "past 16 tokens" in notes
