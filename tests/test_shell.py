"""Commands to paste: a shell gets the intended arguments, however the program was started."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import train
from gptjax.text import shell

ROOT = Path(train.__file__).parent
ODD = [
    "plain",
    "my run",
    "it's",
    "$HOME",
    "a\nb",
    "tab\t!",
    "漢 字",
    "",
    "`id`",
    "\\x41\x07'",
    "-n",
]


def bash(command: str, **options) -> str:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_shell_reads_back_every_word():
    command = shell.joined("printf", r"%s\0", *ODD)
    assert "\n" not in command
    assert "\x07" not in command
    assert bash(command) == "".join(f"{word}\0" for word in ODD)


def test_a_path_that_begins_with_a_dash_is_no_flag(tmp_path):
    (tmp_path / "-n").write_text("text")
    assert bash(shell.joined("cat", Path("-n")), cwd=tmp_path) == "text"


def executable(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_python_has_its_name_only_where_the_shell_finds_it(tmp_path, monkeypatch):
    """`venv/bin/python train.py` without `activate`: `python` is another Python, or missing."""
    mine = executable(tmp_path / "my env" / "python")
    other = executable(tmp_path / "bin" / "python")
    monkeypatch.setattr(sys, "executable", str(mine))
    monkeypatch.setenv("PATH", str(other.parent))
    assert shell.python() == f"'{mine}'"
    monkeypatch.chdir(tmp_path)
    assert shell.python() == "'my env/python'"
    monkeypatch.chdir(mine.parent)
    assert shell.python() == "./python"
    monkeypatch.setenv("PATH", f"{mine.parent}:{other.parent}")
    assert shell.python() == "python"
    # An environment's Python is a link to the system's: the same file, and other packages.
    mine.unlink()
    mine.symlink_to(other)
    monkeypatch.setenv("PATH", str(other.parent))
    assert shell.python() == "./python"
    mine.rename(mine.with_name("python3"))
    monkeypatch.setattr(sys, "executable", str(mine.with_name("python3")))
    monkeypatch.setenv("PATH", str(mine.parent))
    assert shell.python() == "python3"


def test_the_installed_command_has_its_name_only_where_the_shell_finds_it(tmp_path, monkeypatch):
    mine = executable(tmp_path / "env" / "gptjax")
    monkeypatch.setattr(sys, "executable", str(mine.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shell.program() == str(mine)
    monkeypatch.setenv("PATH", str(mine.parent))
    assert shell.program() == "gptjax"
    assert shell.found() == ("gptjax train", "gptjax sample", "gptjax page")
    mine.unlink()
    monkeypatch.chdir(tmp_path)
    assert shell.program() == "env/python -m gptjax"
    assert shell.found() == shell.scripts(ROOT), "in a clone that is not installed"


def test_scripts_are_named_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert shell.scripts(ROOT).train == f"{shell.python()} train.py"
    assert shell.scripts(ROOT).page == f"{shell.python()} -m gptjax page"
    monkeypatch.chdir(ROOT / "gptjax" / "app")
    assert shell.scripts(ROOT).sample == f"{shell.python()} ../../sample.py"
    monkeypatch.chdir(tmp_path)
    assert shell.scripts(tmp_path / "a clone").train == f"{shell.python()} 'a clone/train.py'"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert shell.scripts(ROOT).train == f"{shell.python()} {ROOT}/train.py"
    assert shell.scripts(ROOT).page.startswith(f"PYTHONPATH={ROOT} ")
    os.chdir(tmp_path)  # otherwise, the next use of the working directory fails


@pytest.mark.parametrize("executable", [None, ""])
def test_an_interpreter_without_a_path_is_called_python(executable, monkeypatch):
    monkeypatch.setattr(sys, "executable", executable)
    assert shell.python() in ("python", "./python")
