"""Starts every command in README, docs and docstrings unchanged, until its work has begun."""

import ast
import gzip
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from gptjax import __main__ as program

from conftest import TEXT, tiny
from gpt2_folders import make_folder

ROOT = Path(train.__file__).parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
PAGES.append(ROOT / "notebooks" / "README.md")
CODE = [ROOT / "train.py", ROOT / "sample.py"]
for package in ("gptjax", "compare", "benchmarks", "data", "notebooks"):
    CODE += sorted((ROOT / package).rglob("*.py"))
# With WHOLE=1 in the environment, each command runs to its end: hours, for docs/log/commands.md.
WHOLE = os.environ.get("WHOLE") == "1"
# Seconds until the work has begun (compiling on a slow machine), or until it is done.
PATIENCE = 7200 if WHOLE else 300

A_COMMAND = re.compile(
    r"([A-Z_]+=\S+ )*"
    r"(zcat|python|pip|ruff|pyright|lint-imports|codespell|jupyter|git|hf|gptjax|\.ci/run|source)"
    r"( \S|$)"
)
# A program that a sentence names; not a command.
NAMES = (
    "python -m gptjax export",
    "gptjax export",
    "gptjax",
    "gptjax prepare",
    "python -m gptjax",
    "python -m gptjax verify",
)

# Commands that the tests do not start: the reason, and what else runs the full form.
ELSEWHERE = {
    "pip install": "it needs the network: .ci/run installs in fresh environments",
    "hf download": "the same",
    "python data/prepare.py enwik8": "the same: tests/test_named_corpora.py has stand-ins",
    "python -m gptjax prepare enwik8": "the same",
    "python data/prepare.py text8": "the same",
    "python data/prepare.py tinystories": "the same",
    "python -m venv": "the same",
    "source": "it is for the shell that it is typed in",
    ".ci/run": "it is what runs these tests",
    "ruff": "a linter of .ci/run",
    "pyright": "a linter of .ci/run",
    "lint-imports": "a linter of .ci/run",
    "codespell": "a linter of .ci/run",
    "jupyter": "it opens a browser",
    "python notebooks/execute.py": "tests/test_notebooks.py executes the notebooks",
    "python -m compare.measuring.worker": "python -m compare starts it",
    "python -m benchmarks.step_worker": "benchmarks/train_step.py starts it",
    "python -m benchmarks.updates_worker": "benchmarks/reading.py starts it",
    "python benchmarks/tokenizing.py --train-only": "it needs the step times; --quick does both",
    "python -m benchmarks.accelerator_parts": "benchmarks/accelerator.py starts it",
}
# Placeholders in commands, and their values here.
MEANT = {"FOLDER": "gpt2", "DIR": "gpt2", "RUN": "runs/big", "<rung>": "head", "<seed>": "1"}
MEANT["mine"] = "head"  # the rung that a recipe adds

# The lines that say that the work has begun, or how many seconds a program must be at work that
# says nothing before its first result; all others run to their end.
BEGUN: dict[str, str | int | None] = {
    r"train\.py .*--(eval-only|dry-run)": None,
    r"(train\.py|gptjax train)": r"^step +\d+/|this run is finished",
    r"gptjax\.lecture.*--pictures": None,
    r"gptjax[. ]lecture": r"rungs?, \d+ seeds at once",
    r"-m compare": r"^ +\d+ s  ",
    r"benchmarks/(train_step|tokenizing|preparing|reading)\.py": r"^starting ",
    r"benchmarks/(race|large_vocabulary|torture\.py .*--processes)": 30,
    r"benchmarks/finetune\.py": r"^before, seed 0",
    r"benchmarks/scaling\.py": r"^\| mesh ",
    r"benchmarks/depth\.py": r"^\| scanned ",
    r"benchmarks/accelerator\.py": r"^== .*(PyTorch|Training|settings|checkpoint|twice)",
    r"benchmarks/sampling\.py": r"^.*tokens",
    r"benchmarks/torture\.py": r"^undisturbed: ",
    r"-m pytest": r"workers|\[\d+ items\]|collected|^bringing up nodes",
}


def without_comment(line: str) -> str:
    """A command without its remark, which follows a #, or two spaces in a docstring."""
    return re.split(r"\s+#\s|\s{2,}", line.strip())[0]


def of_markdown(text: str) -> list[str]:
    """Indented code, fenced shell code, and code spans."""
    text = re.sub(r"\s*\\\n\s*", " ", text)
    lines = []
    for language, block in re.findall(r"^```(\w*).*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines += block.splitlines() if language in ("", "sh", "bash") else []
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    spans = re.findall(r"`([^`]+)`", "\n".join(x for x in text.splitlines() if x not in lines))
    return [without_comment(x) for x in lines] + [" ".join(x.split()) for x in spans]


def of_python(text: str) -> list[str]:
    """Lines and code spans of the docstrings."""
    nodes = (ast.Module, ast.FunctionDef, ast.ClassDef)
    docs = [ast.get_docstring(x) or "" for x in ast.walk(ast.parse(text)) if isinstance(x, nodes)]
    lines = [line for doc in docs for line in doc.splitlines()]
    return [without_comment(x) for x in lines] + re.findall(r"`([^`]+)`", "\n".join(docs))


def documented() -> dict[str, str]:
    """Each command, with the first file that has it."""
    found: dict[str, str] = {}
    for path in PAGES + CODE:
        text = path.read_text()
        for line in (of_markdown if path.suffix == ".md" else of_python)(text):
            # A quoted command for another machine is not a command for this one.
            for command in [] if line.startswith("gcloud ") else line.split(" && "):
                if A_COMMAND.match(command) and command not in NAMES:
                    found.setdefault(command, str(path.relative_to(ROOT)))
    return found


COMMANDS = documented()


def elsewhere(command: str) -> bool:
    """Whether the command is not started here; `.ci/run` runs some unchanged to their end."""
    is_of_ci = f" {command}\n" in (ROOT / ".ci" / "run").read_text()
    return is_of_ci or command.startswith(tuple(ELSEWHERE))


def test_there_are_commands():
    """Expects commands of each kind, so that a change of the search cannot lose some unnoticed."""
    started = [x for x in COMMANDS if not elsewhere(x)]
    for part in (
        *("python train.py", "python sample.py --stop $'", "zcat my.txt.gz | python train.py"),
        *("python -m gptjax verify", "python -m gptjax.lecture", "python -m compare"),
        *("python benchmarks/", "python -m pytest", "gptjax lecture", "python data/prepare.py"),
    ):
        assert [x for x in started if x.startswith(part)], part
    assert len(started) >= 50


def test_what_runs_elsewhere_does():
    ci = (ROOT / ".ci" / "run").read_text()
    for command in COMMANDS:
        names = "ruff check .", "ruff format --check .", "pyright", "lint-imports", "codespell"
        for name in names:
            if command.startswith(name):
                assert f"\n{command}\n" in ci


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files of this checkout, with runs and texts of the names that the commands use."""
    clone = tmp_path_factory.mktemp("clone") / "gptjax"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, clone / name)
    corpus = ROOT / "data" / "shakespeare.txt"
    if corpus.exists():
        shutil.copy(corpus, clone / "data")
    text = TEXT + "ROMEO: JULIET: First Citizen, I would I were thy bird.\n" * 9
    (clone / "my.txt").write_text(text)
    (clone / "my.txt.gz").write_bytes(gzip.compress(text.encode()))
    line = json.dumps({"text": text}) + "\n"
    (clone / "more.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    assert program.main(["prepare", str(clone / "my.txt"), "--out", str(clone / "corpus")]) == 0
    for name in ("big", "notebook"):
        flags = tiny("--block-size", 32, "--data", clone / "my.txt")
        assert train.main([*flags, "--out-dir", str(clone / "runs" / name)]) == 0
    (clone / "gpt2").mkdir()
    make_folder(clone / "gpt2")
    flags = ["--init-from", clone / "gpt2", "--data", clone / "my.txt", "--max-iters", 1]
    assert train.main([str(x) for x in [*flags, "--out-dir", clone / "runs" / "fine"]]) == 0
    return clone


@pytest.fixture
def scratch(clone, tmp_path):
    """A copy of the checkout that a command may write to."""
    return Path(shutil.copytree(clone, tmp_path / "gptjax"))


def prepared(command: str, scratch: Path) -> str:
    """Fills in the command's placeholders; returns the command and a folder to run it in."""
    for name, meant in MEANT.items():
        command = re.sub(rf"(?<!\S){name}(?!\S)", meant, command)
    command = command.replace("/tmp/", f"{scratch}/tmp-").replace("/shared/", f"{scratch}/")
    # GPT-2's own vocabulary comes from the network.
    command = command.replace("--tokenizer gpt2", "--tokenizer ./gpt2")
    if (
        "--mesh" in command and "--dry-run" not in command
    ):  # eight devices, which do not divide the CPU preset's 12 sequences
        command += " --batch-size 16"
    if "--init-from gpt2" in command:  # one block, and a context of 16
        command = command.replace("last:2", "last:1").replace("--block-size 256", "--block-size 8")
    command = command.replace("--stride 1024", "--stride 8")  # the context is 16
    words = command.split()
    if "train" in command and "--resume" not in words and "--out-dir" in words:
        shutil.rmtree(scratch / words[words.index("--out-dir") + 1], ignore_errors=True)
    if " prepare " in command:
        shutil.rmtree(scratch / words[words.index("--out") + 1], ignore_errors=True)
    for run in re.findall(r"sample\.py --out-dir (runs/\S+)", command):
        if not (scratch / run).exists():  # made by the command before
            shutil.copytree(scratch / "runs" / "big", scratch / run)
    if "--process-id" in command:  # the other of two processes, on this machine too
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            command = command.replace("10.0.0.1:1234", f"127.0.0.1:{free.getsockname()[1]}")
        own = command[-1]
        command = f"{command[:-1]}{1 - int(own)} & {command}"
    return command


def environment(command: str, scratch: Path) -> dict[str, str]:
    """A shell's environment: this Python is `python`, gptjax is installed, a mesh has devices."""
    bin = scratch.parent / "bin"
    bin.mkdir()
    (bin / "gptjax").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gptjax "$@"\n')
    (bin / "gptjax").chmod(0o755)
    places = [str(bin), str(Path(sys.executable).parent), os.environ["PATH"]]
    ours = {"PATH": ":".join(places), "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
    if WHOLE:
        ours["XLA_FLAGS"] = ""  # conftest.py's compile fast and run slowly
    if "--mesh" in command:
        ours["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    return os.environ | ours


@pytest.mark.slow
@pytest.mark.parametrize("command", [x for x in COMMANDS if not elsewhere(x)])
def test_a_documented_command_begins_its_work(command, scratch):
    sign = next((sign for kind, sign in BEGUN.items() if re.search(kind, command)), None)
    sign = None if WHOLE else sign
    with subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", prepared(command, scratch)],
        cwd=scratch,
        env=environment(command, scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            said = output(process, sign)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    begun = isinstance(sign, str) and re.search(sign, said, re.MULTILINE)
    at_work = isinstance(sign, int) and process.returncode == -signal.SIGKILL
    assert begun or at_work or process.returncode == 0, f"{COMMANDS[command]}: {said[-3000:]}"


def output(process: subprocess.Popen[bytes], sign: str | int | None) -> str:
    """Reads a process's output until it ends, prints a sign of work, or has run long enough."""
    patience = sign if isinstance(sign, int) else PATIENCE
    said, deadline = "", time.monotonic() + patience
    assert process.stdout is not None
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 1)[0]:
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                process.wait()
                return said
            said += part.decode(errors="replace")
            if isinstance(sign, str) and re.search(sign, said, re.MULTILINE):
                return said
    if isinstance(sign, int):
        return said
    raise AssertionError(f"nothing in {PATIENCE} s: {said[-3000:]}")
