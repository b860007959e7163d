"""What README.md shows must work: its code runs, and its commands have flags that exist."""

import re
import shlex
from pathlib import Path

import pytest

from gptjax.app import sample, train
from gptjax.text.shell import found

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"python (train|sample)\.py([^\n#&]*)", README)


def test_the_code_runs_and_learns():
    """The ids count up to ten and start again, so a model of 30 steps knows most of them."""
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)  # our own README
    assert names["loss"] < 1.0
    assert names["y"].shape == (1, 25)


@pytest.mark.parametrize(("script", "flags"), COMMANDS)
def test_the_commands_have_flags_that_exist(script, flags):
    argv = shlex.split(flags.split("`")[0])  # some stand inside a sentence
    {"train": train, "sample": sample}[script].parse(argv, found())


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 8
