"""docs/lecture.md: its code runs, its commands work, its pictures exist, its numbers are true."""

import json
import re
import shlex
from pathlib import Path

import pytest

import sample
import train
from gptjax.lecture import __main__ as lecture
from gptjax.lecture import ladder, results
from gptjax.text import corpora, splitting

from conftest import with_flags

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "lecture.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
PICTURES = re.findall(r"!\[.*?\]\((.*?)\)", PAGE)

# Replaces the text if it is missing: with its 65 characters, so that ids are the same.
CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
STAND_IN = "".join(f"First Citizen {n % 9 * '!'}: we are accounted poor.\n" for n in range(99))
STAND_IN = CHARACTERS + STAND_IN.translate(dict.fromkeys(map(ord, "0123456789")))


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An empty working directory, with the stand-in instead of the text."""
    text = corpora.Text(STAND_IN, "shakespeare", "0" * 64)
    for module in (corpora, splitting, lecture):
        monkeypatch.setattr(module, "load_text", lambda *_, **__: text)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_every_block_of_code_runs_in_order(stand_in):
    namespace: dict[str, object] = {"__name__": "lecture"}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"docs/lecture.md, block {number}", "exec"), namespace)
    assert number >= 1


@pytest.mark.slow
def test_every_command_works(stand_in):
    """In the page's order, with few updates: later blocks use the results of earlier ones."""
    short = ["--max-iters", "2"]
    for command in COMMANDS:
        program, *argv = shlex.split(command.removeprefix("python "))
        if program == "train.py":
            status = train.main([*argv, *short, "--batch-size", "4"])
        elif program == "sample.py":
            status = sample.main([*argv, "--max-new-tokens", "5"])
        else:
            assert [program, argv.pop(0)] == ["-m", "gptjax.lecture"]
            if "--pictures" not in argv:  # one of the rungs that it climbs
                rungs = argv[argv.index("--rungs") + 1] if "--rungs" in argv else "bigram"
                one = ["--seeds", "1", "--rungs", rungs.split(",")[0]]
                argv = with_flags(argv, *short, *one)
            status = lecture.main(argv)
        assert status == 0, command
    for name in PICTURES:
        assert Path("runs", "lecture", name).is_file(), f"no command of the page draws {name}"
    assert len(COMMANDS) >= 10


def test_every_picture_is_there_and_small():
    for name in PICTURES:
        assert 0 < (DOCS / name).stat().st_size < 200_000, name


def test_every_module_and_link_is_there():
    for name in re.findall(r"`(gptjax/\S+?\.py|tests/\S+?\.py)`", PAGE):
        assert (DOCS.parent / name).is_file(), name
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", prose):
        assert (DOCS / target).is_file(), target
    anchors = {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) <= anchors


def test_the_stored_ladder_is_the_lectures():
    """Each rung within 0.03 of the lecture's figure, in its order, with five seeds, in time."""
    rungs = json.loads((DOCS / results.JSON).read_text())["rungs"]
    assert [rung["name"] for rung in rungs] == list(ladder.LADDER)
    means = [results.mean(rung["losses"]) for rung in rungs]
    for rung, mean in zip(rungs, means, strict=True):
        assert len(rung["losses"]) == len(rung["estimates"]) == 5
        assert mean == pytest.approx(rung["lecture"], abs=0.03), rung["name"]
        assert results.mean(rung["estimates"]) == pytest.approx(rung["lecture"], abs=0.03)
    assert means == sorted(means, reverse=True)
    assert sum(rung["seconds"] for rung in rungs) < 600


def test_the_pages_tables_are_the_stored_ones():
    """The ladder in the walk-through and in ladder.md is that of ladder.json."""
    page = (DOCS / results.PAGE).read_text()
    for rung in json.loads((DOCS / results.JSON).read_text())["rungs"]:
        shown = results.spread(rung["losses"])
        assert shown in page
        row = f"| `{rung['name']}` | {rung['parameters']:,} | {shown} | {rung['lecture']:.2f} |"
        assert row in PAGE


def test_the_stand_in_has_the_texts_characters():
    assert len(CHARACTERS) == 65
    assert sorted(set(STAND_IN)) == list(CHARACTERS)
