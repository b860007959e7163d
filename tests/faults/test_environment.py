"""With any variables, missing programs or closed streams: the same run, or one line of error."""

import asyncio
import random
import subprocess
import sys
import threading
from pathlib import Path

import jax
import pytest

import sample
from gptjax.__main__ import main as command
from gptjax.backends.settings import OURS, own_settings
from gptjax.errors import InputError
from gptjax.store import runs

from conftest import TINY
from outcomes import assert_same_state, go
from processes import ENVIRONMENT, ROOT, call, one_line, saved_steps, train_flags

OTHERS = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_high_dynamic_range_gumbel": True,
    "jax_default_matmul_precision": "bfloat16",
    "jax_disable_jit": True,
    "jax_transfer_guard": "disallow",
    "jax_transfer_guard_host_to_device": "disallow",
    "jax_transfer_guard_device_to_device": "disallow",
    "jax_transfer_guard_device_to_host": "disallow",
    "jax_error_checking_behavior_nan": "raise",
    "jax_error_checking_behavior_divide": "raise",
    "jax_error_checking_behavior_oob": "raise",
}


@pytest.mark.parametrize("name", OURS)
def test_a_setting_of_jax_changes_no_bit_of_a_run(tmp_path, text_file, finished_run, name, capsys):
    before = jax.config.values.get(name)
    if before is None and OURS[name] is not None:
        pytest.skip("this release of JAX has no such setting")
    other = OTHERS.get(name, not OURS[name])
    jax.config.update(name, other)
    try:
        assert go(tmp_path / "run", text_file) == 0
        assert getattr(jax.config.values[name], "value", jax.config.values[name]) == other
    finally:
        jax.config.update(name, getattr(before, "value", before))
    assert f"train.py: warning: {name}={other} is ignored" in capsys.readouterr().err
    assert_same_state(tmp_path / "run", finished_run)


@pytest.mark.slow
def test_variables_of_jax_change_no_bit_of_a_run_or_of_a_sample(
    tmp_path, text_file, finished_run, capsys
):
    """`JAX_ENABLE_X64=1 python train.py` once gave a traceback and an incomplete folder."""
    settings = {
        "JAX_ENABLE_X64": "1",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
        "JAX_DEBUG_NANS": "1",
        "JAX_DISABLE_JIT": "1",
        "JAX_RANDOM_SEED_OFFSET": "5",
    }
    path = tmp_path / "run"
    flags = train_flags(path, text_file)
    status, _, err = call("train.py", *flags, env=ENVIRONMENT | settings)
    assert status == 0
    assert len(err.splitlines()) == len(settings) - 1, "rank promotion is never needed"
    assert_same_state(path, finished_run)
    flags = ["--out-dir", finished_run, "--max-new-tokens", 30]
    _, text, _ = call("sample.py", *flags, env=ENVIRONMENT | settings)
    capsys.readouterr()
    assert sample.main([str(flag) for flag in flags]) == 0
    assert capsys.readouterr().out == text


def test_a_setting_of_this_thread_alone_is_refused():
    told = pytest.raises(InputError, match="jax_debug_nans is True in this")
    with jax.debug_nans(True), told, own_settings(print):
        pass
    assert jax.config.values["jax_debug_nans"] is False


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_flags_that_xla_does_not_know_are_one_line(tmp_path, script, text_file):
    """Otherwise XLA aborts the process."""
    path = tmp_path / "run"
    flags = train_flags(path, text_file) if script == "train.py" else ["--out-dir", tmp_path]
    environment = ENVIRONMENT | {"XLA_FLAGS": "--xla_nonsense=3"}
    status, _, err = call(script, *flags, env=environment)
    assert status == 2
    assert "--xla_nonsense=3" in one_line(err, script)
    assert not path.exists()


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_a_variable_that_jax_cannot_read_is_one_line(script):
    """JAX reads these variables when it is imported, before the script starts."""
    environment = ENVIRONMENT | {"JAX_ENABLE_X64": "perhaps"}
    status, out, err = call(script, "--nonsense", env=environment)
    assert (status, out) == (2, "")
    assert "'perhaps' for environment 'JAX_ENABLE_X64'" in one_line(err, script)


def test_a_variable_that_jax_cannot_read_is_one_line_of_the_command():
    """`python -m gptjax` imports the package before its command: it must not import JAX."""
    process = subprocess.run(
        [sys.executable, "-m", "gptjax", "train"],
        env=ENVIRONMENT | {"JAX_ENABLE_X64": "perhaps"},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert "'perhaps' for environment 'JAX_ENABLE_X64'" in one_line(process.stderr, "gptjax")


@pytest.mark.slow
def test_without_a_home_or_an_entry_for_the_user(tmp_path, text_file):
    script = """
import pwd, sys
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
import train
sys.exit(train.main())
"""
    without = ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "USERNAME")
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in without}
    done = subprocess.run(
        [sys.executable, "-c", script, *train_flags(tmp_path / "run", text_file)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert saved_steps(tmp_path / "run") == [3, 6]
    assert (tmp_path / "run" / "loss.png").exists()


def shell(script: str, flags: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    """Runs a script with some of its standard streams closed or redirected."""
    start = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, *start, *flags],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "closed",
    ["<&- >&- 2>&-", *(pytest.param(x, marks=pytest.mark.slow) for x in (">&-", "2>&-"))],
)
def test_a_run_with_closed_streams(tmp_path, text_file, closed, capsys):
    path = tmp_path / "run"
    flags = [*train_flags(path, text_file), "--max-minutes", "1e9", "--keep", "99"]
    done = shell("train.py", [str(flag) for flag in flags], closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert command(["verify", str(path)]) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_text_and_notes_with_closed_streams(finished_run):
    flags = ["--out-dir", str(finished_run), "--max-new-tokens", "30"]
    whole = shell("sample.py", flags, "")
    assert "past 16 tokens" in whole.stderr
    for closed, expected in {
        ">&-": (0, "", whole.stderr),
        "2>&-": (0, whole.stdout, ""),
        "<&-": (0, whole.stdout, whole.stderr),
        "<&- >&- 2>&-": (0, "", ""),
    }.items():
        done = shell("sample.py", flags, closed)
        assert (done.returncode, done.stdout, done.stderr) == expected, closed


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_verify_and_lecture_with_closed_streams(finished_run, tmp_path, text_file, closed):
    done = shell("gptjax", ["verify", str(finished_run)], closed)
    assert (done.returncode, done.stderr) == (0, "")
    flags = "lecture --rungs bigram --seeds 1 --max-iters 2 --out".split()
    done = shell("gptjax", [*flags, str(tmp_path / "out"), "--data", str(text_file)], closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "ladder.md").exists()


def test_from_a_thread(tmp_path, text_file, finished_run):
    """Python allows signal handlers only in the main thread."""
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(go(tmp_path / "run", text_file)))
    thread.start()
    thread.join()
    assert statuses == [0]
    assert_same_state(tmp_path / "run", finished_run)


def test_from_a_notebook(tmp_path, text_file, finished_run):
    """As in a notebook, where an event loop is already running."""

    async def cell() -> int:
        return go(tmp_path / "run", text_file)

    assert asyncio.run(cell()) == 0
    assert_same_state(tmp_path / "run", finished_run)


@pytest.mark.slow
def test_from_another_folder_the_hints_name_the_scripts_where_they_are(tmp_path, text_file):
    flags = train_flags(Path("run"), text_file, "--max-iters", 1)
    status, out, err = call("train.py", *flags, cwd=tmp_path)
    assert (status, err) == (0, "")
    assert f"python {ROOT / 'sample.py'} --out-dir run" in out
    status, out, err = call("train.py", "--nonsense", cwd=tmp_path)
    assert one_line(err).startswith("train.py: error: ")


# Variables that a shell, scheduler or notebook may have set; None unsets a variable.
VARIABLES: dict[str, list[str | None]] = {
    "JAX_ENABLE_X64": ["1", "0", "perhaps"],
    "JAX_DEBUG_NANS": ["1"],
    "JAX_DISABLE_JIT": ["1"],
    "JAX_DEFAULT_PRNG_IMPL": ["rbg", "nonsense"],
    "JAX_NUMPY_DTYPE_PROMOTION": ["strict", "nonsense"],
    "JAX_NUMPY_RANK_PROMOTION": ["raise", "warn"],
    "JAX_TRANSFER_GUARD": ["disallow", "log"],
    "JAX_PLATFORMS": ["cpu", "nonsense", ""],
    "JAX_COMPILATION_CACHE_DIR": ["/nonexistent/folder", "/dev/null"],
    "JAX_LOG_COMPILES": ["0"],
    "XLA_FLAGS": ["--xla_nonsense=1", "nonsense", ""],
    "MPLBACKEND": ["module://matplotlib_inline.backend_inline", "TkAgg", "nonsense", ""],
    "MPLCONFIGDIR": ["/dev/null", "/nonexistent/folder"],
    "MATPLOTLIBRC": ["/nonexistent", "/dev/null"],
    "FORCE_COLOR": ["1", "0", ""],
    "NO_COLOR": ["1"],
    "TTY_COMPATIBLE": ["1", "0"],
    "TTY_INTERACTIVE": ["1", "0"],
    "TERM": ["dumb", "nonsense", "", None],
    "COLUMNS": ["0", "1", "-3", "many", "100000"],
    "LINES": ["0", "many"],
    "LC_ALL": ["C", "POSIX", "tr_TR.UTF-8", "nonsense"],
    "LANG": ["C", None],
    "PYTHONIOENCODING": ["ascii", "latin-1", "utf-8"],
    "PYTHONUTF8": ["0", "1"],
    "PYTHONOPTIMIZE": ["2"],
    "PYTHONWARNINGS": ["ignore", "always"],
    "PYTHONUNBUFFERED": ["1"],
    "HOME": ["/nonexistent", "", None],
    "USER": ["", None],
    "XDG_CACHE_HOME": ["/dev/null", "", None],
    "TMPDIR": ["/nonexistent", ""],
    "TZ": ["nonsense", ""],
    "OMP_NUM_THREADS": ["1", "many"],
}
STREAMS = [
    "",
    "",
    "",
    ">&-",
    "2>&-",
    "<&-",
    ">&- 2>&-",
    "<&- >&- 2>&-",
    ">/dev/full",
    "2>&1 | head -1",
]
FOLDERS = ["run", "my run", "it's $HOME", "-x", "ü/漢/🙂", "new\nline", "deep/er/run", "*"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(40))
def test_environments(tmp_path, text_file, finished_run, number):
    """Success or one line of error; the folder stays only if the run can be resumed."""
    chance = random.Random(number)
    names = chance.sample(sorted(VARIABLES), chance.randint(2, 9))
    chosen = {name: chance.choice(VARIABLES[name]) for name in names}
    environment = {k: v for k, v in (ENVIRONMENT | chosen).items() if v is not None}
    path, streams = tmp_path / chance.choice(FOLDERS), chance.choice(STREAMS)
    flags = [*TINY, "--data", str(text_file), f"--out-dir={path}"]
    for script, arguments in (
        ("train.py", flags),
        ("sample.py", ["--out-dir", str(finished_run), "--max-new-tokens", "20"]),
    ):
        command = [sys.executable, str(ROOT / script), *arguments]
        done = subprocess.run(
            ["bash", "-c", f'set -o pipefail; "$@" {streams}', "bash", *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            errors="replace",
        )
        assert done.returncode in (0, 1, 2), (chosen, streams, done)
        assert "Traceback" not in done.stderr + done.stdout, (chosen, streams, done)
        assert "Exception ignored" not in done.stderr, (chosen, streams, done)
        if done.returncode != 0 and "2>" not in streams:
            assert f"{script}: error: " in done.stderr, (chosen, streams, done)
    if path.exists():
        assert runs.is_run(path)
    assert sorted(tmp_path.glob("runs/*")) == []
