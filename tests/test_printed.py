"""Pastes the commands that a run prints into a shell, in odd folders, for all ways to start it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sample
import train
from gptjax.app import hints
from gptjax.app import page as page_command
from gptjax.text.shell import Commands

from conftest import tiny

ROOT = Path(train.__file__).parent
ODD = "it's my $HOME run"
WORDS = "Der Zwerg aß früh.\nNoch ein Zug, und aus.\n"  # without the M of ROMEO


def printed(out: str) -> list[str]:
    """The commands: the indented lines, except a sample's, which begin with a bar."""
    return [line.strip() for line in out.splitlines() if re.match(r"    [^ |]", line)]


def shell_words(command: str) -> list[str]:
    """The arguments that bash passes to a command."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.slow
def test_the_commands_of_a_run_in_an_odd_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(WORDS * 20)
    flags = tiny("--data", "text.txt", "--out-dir", ODD, "--max-minutes", 1e-9)
    assert train.main(flags) == 0
    resume, sampling, page = map(shell_words, printed(capsys.readouterr().out))
    assert train.main([*resume[2:], "--max-minutes", "0"]) == 0
    sampling_again, page_again = map(shell_words, printed(capsys.readouterr().out))
    assert (sampling_again, page_again) == (sampling, page)
    assert page_command.main(page[page.index("page") + 1 :], command="page") == 0
    assert Path(ODD, "page.html").exists()
    capsys.readouterr()
    assert sample.main([*sampling[2:], "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("Der Zwerg aß früh.")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("First Citizen:\nBefore we proceed any further, hear me speak.", "First Citizen:"),
        ("\n\n  a line\n", "a line"),
        ("-n a flag\n\x1b[31mred\n\tafter\n", "after"),
        ("Before we proceed any further, hear me speak.", "Before we proceed any"),
        ("x" * 100, "x" * 24),
        ("-\n\0\n", ""),
        ("漢字漢字", "漢字漢字"),
    ],
)
def test_the_prompt_is_the_texts_first_words(text, prompt):
    assert hints.prompt_of(text) == prompt
    command = hints.sample(Commands("train", "sample", "page"), Path("run"), text)
    assert shell_words(command) == ["sample", "--out-dir", "run"] + (
        ["--prompt", prompt] if prompt else []
    )


def test_a_terminal_that_lacks_a_character_is_not_asked_to_show_it(monkeypatch):
    class Stream:
        encoding = "latin-1"

    monkeypatch.setattr(sys, "stdout", Stream())
    assert hints.prompt_of("漢字\nfrüh\n") == "früh"
    Stream.encoding = "ascii"
    assert hints.prompt_of("漢字\nfrüh\nlate\n") == "late"


STARTS = {
    "script": "python ../train.py",
    "script by its path": f"python {ROOT}/train.py",
    "module": "python -m gptjax train",
    "library": "python -c 'import sys; from gptjax.app import train; "
    "sys.exit(train.main(sys.argv[1:]))'",
    "python by its path": f"'{sys.executable}' {ROOT}/train.py",
}


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_what_is_printed_runs_when_it_is_pasted(start, tmp_path):
    """With the environment's Python in PATH, and without, by its own path."""
    folder = tmp_path / ODD
    folder.mkdir()
    for name in ("train.py", "sample.py", "gptjax"):
        (tmp_path / name).symlink_to(ROOT / name)
    (folder / "text.txt").write_text(WORDS * 20)
    bin = "" if start == "python by its path" else f"{Path(sys.executable).parent}:"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{bin}/usr/bin:/bin"}

    def paste(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    flags = tiny("--data", "text.txt", "--max-minutes", 1e-9)
    resume, sampling, page = printed(paste(f"{STARTS[start]} {' '.join(flags)}"))
    assert resume.endswith(" --resume")
    assert "page.html" in paste(page)
    assert paste(f"{sampling} --max-new-tokens 3").startswith("Der Zwerg aß früh.")
    assert "final validation loss" in paste(f"{resume} --max-minutes 0")


@pytest.mark.slow
def test_the_installed_command_likewise(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    (folder / "text.txt").write_text(WORDS * 20)
    venv = tmp_path / "my env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "all.pth").write_text("\n".join([str(ROOT), *sys.path]))
    script = venv / "bin" / "gptjax"
    script.write_text(f"#!/bin/sh\nexec '{venv}/bin/python' '{packages}/started.py' \"$@\"\n")
    (packages / "started.py").write_text(
        f"import sys\nfrom gptjax.__main__ import main\n"
        f"sys.argv[0] = {str(script)!r}\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    for path in ("/usr/bin:/bin", f"{venv}/bin:/usr/bin:/bin"):
        environment = os.environ | {"PATH": path}

        def paste(command: str, environment=environment) -> str:
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, (command, done.stderr)
            return done.stdout

        sampling, page = printed(paste(f"'{script}' train {' '.join(tiny('--data', 'text.txt'))}"))
        name = "gptjax" if "my env" in path else "'../my env/bin/gptjax'"
        assert sampling.startswith(f"{name} sample ")
        assert page.startswith(f"{name} page ")
        assert "page.html" in paste(page)
        assert paste(f"{sampling} --max-new-tokens 3").startswith("Der Zwerg aß früh.")
