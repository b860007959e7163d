"""Whatever is typed and whatever is in the files: a result or one clear line, never a traceback."""

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

from conftest import TEXT, tiny, with_flags
from processes import ENVIRONMENT, ROOT

SCRIPTS = {"train.py": train, "sample.py": sample, "gptjax": command}

whole = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63, 10**30, -(10**30)]),
)
real = st.one_of(st.floats(), st.floats(0, 1.5))
text = st.one_of(st.text(max_size=12), st.sampled_from(["", "best", "latest", "--", "-1", "nan"]))
anything = st.one_of(whole, real, text).map(str)


def flags(**kinds):
    """Some of these flags with values of their kinds, in any order."""

    def spell(items):
        return [part for name, value in items for part in (f"--{name}", str(value))]

    pairs = [st.tuples(st.just(name.replace("_", "-")), kind) for name, kind in kinds.items()]
    return st.lists(st.one_of(*pairs), max_size=6, unique_by=lambda pair: pair[0]).map(spell)


SAMPLING = flags(
    prompt=st.one_of(st.text(alphabet=TEXT, max_size=30), text),
    num_samples=st.one_of(st.integers(1, 2), whole.filter(lambda n: not 2 < n < 2**31)),
    max_new_tokens=st.one_of(st.integers(1, 20), whole.filter(lambda n: not 70 < n < 2**31)),
    temperature=real,
    top_k=whole,
    top_p=real,
    seed=st.one_of(st.integers(0, 9), whole),
    step=st.one_of(st.sampled_from(["best", "latest", "3", "6"]), anything),
    prompt_file=anything,
)

# Any flag with any value, and never a text to train on.
VALUED = (
    "--n-layer --n_head --n-embd --block-size --dropout --activation --dtype --batch-size "
    "--max-iters --learning-rate --min-lr --beta1 --keep --seed --preset --max-minutes "
    "--save-interval-minutes --grad-clip --eval-interval --out-dir"
).split()
SWITCHES = "--resume --overwrite --eval-only --skip-nonfinite --no-bias --tie_embeddings".split()
FOREIGN = "--device --init_from --start --compile --lr -seed --n-layr --no-such".split()
truth = st.sampled_from(["True", "false", "1", "off", "maybe", ""])


def spelt(names, values):
    """A flag and its value, in two arguments or in one."""
    pairs = st.tuples(st.sampled_from(names), values)
    return pairs | pairs.map(lambda pair: ("=".join(pair),))


def typed(*parts):
    """A command line of some of these parts."""
    chosen = st.lists(st.one_of(*parts), max_size=6)
    return chosen.map(lambda parts: [x for part in parts for x in part])


TYPED = typed(
    spelt(VALUED, anything),
    spelt(SWITCHES, truth),
    spelt(FOREIGN, anything),
    st.tuples(st.sampled_from(SWITCHES)),
    st.tuples(anything),
)

# The same of sample.py, and never a run to sample from.
VALUED_BY_SAMPLE = (
    "--prompt --prompt_file --num-samples --max-new-tokens --stop --temperature --top-k --top_p "
    "--min-p --repetition-penalty --seed --step --window --logprobs --score --stride --dtype "
    "--block-size --batch-size --from-huggingface"
).split()
not_standard_input = anything.filter(lambda value: value != "-")
TYPED_FOR_SAMPLE = typed(
    spelt(VALUED_BY_SAMPLE, not_standard_input),
    spelt(FOREIGN, not_standard_input),
    st.tuples(not_standard_input),
)

TRAINING = flags(
    n_head=st.integers(1, 2),
    batch_size=st.integers(0, 2),
    dropout=st.sampled_from([0, 0.5]),
    learning_rate=real,
    weight_decay=real,
    grad_clip=real,
    beta2=real,
    init_std=real,
    warmup_iters=whole,
    keep=whole.filter(lambda n: n != 0),
    log_interval=whole,
    save_interval_minutes=real,
    max_minutes=real,
    eval_iters=whole,
)
BOOLEANS = st.lists(st.sampled_from(["--skip-nonfinite", "--tie-embeddings", "--no-bias"]))

TEXTS = st.one_of(
    st.text(max_size=300).map(lambda s: s.encode("utf-8", "surrogatepass")),
    st.binary(max_size=300),
    st.text(alphabet="ab🙂\r\n", min_size=150, max_size=160).map(str.encode),
)

# Where a file is changed, as shares of the files and of one's length, and what is put there.
CHANGES = st.tuples(
    st.floats(0, 0.999), st.floats(0, 0.999), st.one_of(st.none(), st.binary(max_size=6))
)


def outcome(name: str, argv: list[str]) -> int:
    """Calls a script in this process and holds what it says to the rules."""
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
    """Writes into a file of a run, or cuts it off there."""
    files = sorted(p for p in run.rglob("*") if p.is_file() and p.name != "loss.png")
    # Half of the time one of the files that a person could edit.
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
    folder = tmp_path_factory.getbasetemp() / "flags of sample"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        status = outcome("sample.py", [*argv, "--out-dir", str(folder / "no such run")])
    assert status == 2 or "--help" in argv or "-h" in argv
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@property_test(500)
@given(argv=TYPED)
def test_flags(tmp_path_factory, argv):
    folder = tmp_path_factory.getbasetemp() / "flags"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        status = outcome("train.py", [*argv, "--data", str(folder / "no such file")])
    assert status == 2 or "--help" in argv or "-h" in argv
    assert list(folder.iterdir()) == [], "no folder stays of a run that cannot be resumed"


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
    """The same as real processes, whose arguments can hold neither NUL nor a lone surrogate."""
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
        ["--temperature", "3.5e38"],  # a finite float, and no float32: a warning of NumPy's
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
