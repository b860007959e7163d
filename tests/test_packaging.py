"""The files that an installation has, and its command."""

import os
import tomllib
from pathlib import Path

import pytest

import gptjax
import sample
import train
from gptjax import __main__ as command
from gptjax.text.packages import PACKAGES

from conftest import TINY

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path_factory):
    """Runs the installed command, not `python -m gptjax`."""
    program = tmp_path_factory.mktemp("bin") / "gptjax"
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.argv", [str(program)])


def test_requirements_are_the_dependencies_and_the_test_runner():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = {line.split("#")[0].strip() for line in lines} - {""}
    assert listed == set(PROJECT["dependencies"]) | set(EXTRAS["test"])


def test_a_library_user_installs_no_test_runner():
    needed = " ".join(PROJECT["dependencies"])
    assert not [name for name in ("pytest", "hypothesis", "torch", "ruff") if name in needed]
    assert set(EXTRAS) == {"test", "huggingface", "data", "compare", "notebooks", "dev"}


def test_every_requirement_has_a_lower_and_an_upper_bound():
    everything = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    for requirement in everything:
        own = requirement.startswith("gptjax[")
        assert own or "==" in requirement or (">=" in requirement and ",<" in requirement)


def test_the_advice_for_optional_packages_installs_the_extras():
    assert set(PACKAGES.values()) == {*EXTRAS["huggingface"], *EXTRAS["data"]}


def test_no_address_stands_in_the_metadata():
    assert "urls" not in PROJECT


def test_every_public_name_is_there():
    assert all(hasattr(gptjax, name) for name in gptjax.__all__)
    assert set(gptjax.__all__) <= set(dir(gptjax))
    assert gptjax.training.make_train_step
    assert not hasattr(gptjax, "no_such_name")


@pytest.mark.parametrize("argv", [["--version"], ["-V"], ["verify", "--version"], ["verify", "-V"]])
def test_the_version(argv, capsys):
    assert command.main(argv) == 0
    assert capsys.readouterr().out == f"gptjax {gptjax.__version__}\n"


@pytest.mark.parametrize("script", [train, sample])
def test_the_scripts_versions(script, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"gptjax {gptjax.__version__}\n"


def test_help_names_every_command(capsys):
    assert command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"gptjax {name}" in out for name in command.COMMANDS)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "needs a command: it has train, sample, verify, prepare, export, page, lecture"),
        (["trian"], "no command 'trian': did you mean train?"),
        (["--resume"], "no command '--resume': it has train, sample"),
        (["train", "--n-layer", "0"], "gptjax train: error: --n-layer (0) must be at least 1"),
        (["sample", "--top-k", "0"], "gptjax sample: error: --top-k (0) must be at least 1"),
        (["verify"], "gptjax verify: error: the command is `gptjax verify RUN`"),
        (["verify", "--all"], "gptjax verify: error: the command is `gptjax verify RUN`"),
        (["lecture", "--seeds", "0"], "gptjax lecture: error: --seeds (0) must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_is_one_line(argv, said, capsys):
    assert command.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["train", "sample", "page", "lecture"])
def test_each_commands_help_speaks_of_itself(name, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main([name, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: gptjax {name} [flags]" in out
    assert f"\ngptjax {name} " in out
    assert ".py" not in out.partition("options:")[0]


def test_the_command_trains_and_samples_in_any_folder(tmp_path, text_file, monkeypatch, capsys):
    """As after `pip install .`: data and runs are in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert command.main(["train", *TINY, "--data", str(text_file)]) == 0
    [run] = (tmp_path / "runs").iterdir()
    assert f"gptjax sample --out-dir runs/{run.name} --prompt" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["gptjax/__main__.py"])
    assert command.main(["sample", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.count("-" * 15) == 1
    assert command.main(["verify", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("gptjax verify: error: nowhere")
