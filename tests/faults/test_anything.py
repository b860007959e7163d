"""For any flags and any file contents: a result or one clear line, never a traceback."""

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sample
import train
from gptjax import __main__ as command

from conftest import tiny, with_flags
from processes import ENVIRONMENT, ROOT
from typed import BOOLEANS, SAMPLING, TRAINING, TYPED, TYPED_FOR_SAMPLE

SCRIPTS = {"train.py": train, "sample.py": sample, "gptjax": command}


TEXTS = st.one_of(
    st.text(max_size=300).map(lambda s: s.encode("utf-8", "surrogatepass")),
    st.binary(max_size=300),
    st.text(alphabet="ab🙂\r\n", min_size=150, max_size=160).map(str.encode),
)

# Which file to change, and where, as fractions of the list and of the length; and the new bytes.
CHANGES = st.tuples(
    st.floats(0, 0.999), st.floats(0, 0.999), st.one_of(st.none(), st.binary(max_size=6))
)


def outcome(name: str, argv: list[str]) -> int:
    """Calls a script in this process, and checks its output against the rules."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = SCRIPTS[name].main(argv)
        except SystemExit as asked_for_help:
            status = asked_for_help.code
    check(name, status, err.getvalue())
    return int(status)


def check(name: str, status: object, err: str) -> None:
    assert status in (0, 1, 2), status
    assert "Traceback" not in err
    lines = [
        x for x in err.split("\n") if x.startswith((f"{name}: error: ", f"{name} verify: error: "))
    ]
    assert len(lines) == (status == 2 or (status == 1 and name != "gptjax")), err


def check_refused(tmp_path_factory, name: str, argv: list[str], flag: str) -> None:
    """With any other flags, a path that does not exist is refused, and no file is left."""
    folder = tmp_path_factory.getbasetemp() / f"flags of {name}"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        status = outcome(name, [*argv, flag, str(folder / "not there")])
    assert status == 2 or "--help" in argv or "-h" in argv
    assert list(folder.iterdir()) == [], "no folder stays of a run that cannot be resumed"


def property_test(examples):
    """The same examples every time, and without a deadline: compiling takes long.

    GPTJAX_EXAMPLES=10 tries ten times as many.
    """
    return settings(
        max_examples=int(examples * float(os.environ.get("GPTJAX_EXAMPLES", 1))),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def damage(run: Path, where: float, at: float, what: bytes | None) -> None:
    """Overwrites bytes in a file of a run, or truncates the file there."""
    files = sorted(p for p in run.rglob("*") if p.is_file() and p.name != "loss.png")
    # Half of the time, change a file that a person could edit.
    files += [p for p in files if p.suffix in (".json", ".jsonl")] * 5
    file = files[int(where * len(files))]
    content = file.read_bytes()
    place = int(at * len(content))
    file.write_bytes(
        content[:place] if what is None else content[:place] + what + content[place + len(what) :]
    )


@pytest.mark.slow
@property_test(500)
@given(argv=SAMPLING)
def test_sampling(finished_run, argv):
    outcome("sample.py", ["--out-dir", str(finished_run), *argv])


@pytest.mark.slow
@property_test(200)
@given(argv=TYPED_FOR_SAMPLE)
def test_flags_of_sample(tmp_path_factory, argv):
    check_refused(tmp_path_factory, "sample.py", argv, "--out-dir")


@pytest.mark.slow
@property_test(500)
@given(argv=TYPED)
def test_flags(tmp_path_factory, argv):
    check_refused(tmp_path_factory, "train.py", argv, "--data")


@pytest.mark.slow
@property_test(120)
@given(change=CHANGES, step=st.sampled_from(["best", "latest", "6"]))
def test_damaged_runs(finished_run, tmp_path_factory, change, step):
    path = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(finished_run, path)
    damage(path, *change)
    outcome("gptjax", ["verify", str(path)])
    outcome("sample.py", ["--out-dir", str(path), "--step", step, "--max-new-tokens", "2"])


@pytest.mark.slow
@property_test(140)
@given(argv=TYPED, flag=st.sampled_from(["--resume", "--eval-only"]))
def test_resuming(finished_run, tmp_path_factory, argv, flag):
    path = tmp_path_factory.getbasetemp() / "resumed"
    if not path.exists():
        shutil.copytree(finished_run, path)
    with contextlib.chdir(tmp_path_factory.getbasetemp()):
        outcome("train.py", [*argv, flag, "--out-dir", str(path), "--max-iters", "6"])


@pytest.mark.slow
@property_test(25)
@given(argv=TRAINING, more=BOOLEANS)
def test_training(finished_run, tmp_path_factory, argv, more):
    path = tmp_path_factory.mktemp("any") / "run"
    data = finished_run.parent / "text.txt"
    flags = tiny("--max-iters", 2, "--eval-interval", 2, "--data", data, "--out-dir", path)
    status = outcome("train.py", [*with_flags(flags, *argv), *more])
    if status == 0:
        assert outcome("gptjax", ["verify", str(path)]) == 0
        lines = [json.loads(x) for x in (path / "metrics.jsonl").read_text().splitlines()]
        assert [x["step"] for x in lines] == sorted({x["step"] for x in lines})


@pytest.mark.slow
@property_test(20)
@given(content=TEXTS)
def test_texts(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_bytes(content)
    flags = tiny("--block-size", 4, "--max-iters", 1, "--eval-interval", 1)
    flags += ["--data", str(folder / "text.txt"), "--out-dir", str(folder / "run")]
    if outcome("train.py", flags) == 0:
        assert (
            outcome("sample.py", ["--out-dir", str(folder / "run"), "--max-new-tokens", "3"]) == 0
        )


@pytest.mark.slow
@property_test(12)
@given(data=st.data())
def test_processes(finished_run, tmp_path_factory, data):
    """The same with real processes, whose arguments cannot contain NUL or a lone surrogate."""
    script = data.draw(st.sampled_from(["sample.py", "sample.py", "train.py"]))
    argv = data.draw(SAMPLING if script == "sample.py" else TYPED)
    argv = [x.encode("utf-8", "replace").replace(b"\0", b"").decode() for x in argv]
    ending = (
        ["--data", str(tmp_path_factory.getbasetemp() / "no such file")]
        if script == "train.py"
        else ["--out-dir", str(finished_run)]
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *argv, *ending],
        env=ENVIRONMENT,
        cwd=tmp_path_factory.getbasetemp(),
        capture_output=True,
    )
    check(script, done.returncode, done.stderr.decode())


def test_a_few_of_each(finished_run, tmp_path_factory):
    """The quick part: a fixed handful, so that a break shows before the slow tests."""
    moments = random.Random(0)
    for argv in (
        ["--prompt", "\ud800"],
        ["--top-k", "1" + "0" * 30],
        ["--step", "9" * 40],
        ["--temperature", "1e-320"],
        ["--temperature", "3.5e38"],  # a finite float beyond float32: NumPy warns
        ["--num-samples", str(2**31)],
        ["--max-new-tokens", str(10**30)],
        ["--prompt-file", "a\0b"],
    ):
        outcome("sample.py", ["--out-dir", str(finished_run), "--max-new-tokens", "2", *argv])
    for argv in (
        ["--out-dir", "a\0b"],
        ["--out-dir", "x" * 5000],
        ["--max-iters", str(2**31)],
        ["--batch-size", "9" * 5000],
        ["--preset", "\ud800"],
        ["--data", "\0"],
        ["--out-dir", "\ud800"],
    ):
        assert outcome("train.py", ["--data", "no such file", *argv]) == 2
    for _ in range(6):
        path = tmp_path_factory.mktemp("damaged") / "run"
        shutil.copytree(finished_run, path)
        damage(path, moments.random(), moments.random(), moments.randbytes(3))
        outcome("sample.py", ["--out-dir", str(path), "--max-new-tokens", "2"])
