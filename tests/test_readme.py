"""README.md's examples must work: its code runs, and its commands use existing flags."""

import re
import shlex
from pathlib import Path

import pytest

from gptjax.app import sample, train
from gptjax.text.shell import found

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"python (train|sample)\.py([^\n#&]*)", README)


def test_the_code_runs_and_learns():
    """The ids repeatedly count up to ten, so a model learns most of the text in 30 steps."""
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)  # our own README
    assert names["loss"] < 1.0
    assert names["y"].shape == (1, 25)


@pytest.mark.parametrize(("script", "flags"), COMMANDS)
def test_the_commands_have_flags_that_exist(script, flags):
    argv = shlex.split(flags.split("`")[0])  # some are inside a sentence
    {"train": train, "sample": sample}[script].parse(argv, found())


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 8
