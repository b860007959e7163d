"""How a script ends: one line and a status for a user's error, otherwise a traceback."""

import sys
from types import SimpleNamespace

import pytest

from gptjax.app.script import run_script
from gptjax.errors import ConfigError, InputError, RunError


@pytest.fixture(autouse=True)
def hook(monkeypatch):
    """`run_script` changes it for the whole process; here it is restored after each test."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    return told


def ends(error):
    def script(argv):
        raise error

    return run_script("train.py", script, [])


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("text 'x' must be longer"), 2, "text 'x' must be longer"),
        (ConfigError("n_layer", 0, "must be at least 1"), 2, "--n-layer (0) must be at least 1"),
        (RunError("the loss is nan"), 1, "the loss is nan"),
        (ValueError("embedded null byte"), 2, "a path must not contain a NUL character"),
        (FileNotFoundError(2, "No such file", "runs/x"), 1, "runs/x: No such file"),
        (PermissionError(13, "Permission denied", "runs/x"), 2, "runs/x: Permission denied"),
        (OSError(28, "No space left on device", "runs/x"), 1, "runs/x: No space left on device"),
        (RuntimeError("RESOURCE_EXHAUSTED: 8 GB"), 1, "out of memory (RESOURCE_EXHAUSTED: 8 GB)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_the_user_can_mend_is_one_line_and_a_status(capfd, error, status, line):
    assert ends(error) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"train.py: error: {line}"), err
    assert err.count("\n") == 1


def test_a_line_keeps_the_spaces_of_a_path(capfd):
    ends(InputError("'my  run'\n  is gone"))
    assert capfd.readouterr().err == "train.py: error: 'my  run' is gone\n"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), KeyError("a bug")])
def test_a_bug_is_not_passed_off_as_the_users_mistake(error):
    with pytest.raises(type(error), match="a bug"):
        ends(error)


def test_a_reader_that_left_is_told_nothing(capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # removed, so that nothing is flushed
    assert ends(BrokenPipeError()) == 1
    assert capfd.readouterr().err == ""


def test_tasks_that_orbax_left_behind_are_passed_over_and_nothing_else(hook):
    run_script("train.py", lambda argv: 0, [])
    run_script("sample.py", lambda argv: 0, [])  # does not wrap the wrapper
    left = SimpleNamespace(exc_value=RuntimeError("Event loop is closed"))
    other = SimpleNamespace(exc_value=RuntimeError("a bug in a finalizer"))
    sys.unraisablehook(left)
    sys.unraisablehook(other)
    assert hook == [other]
