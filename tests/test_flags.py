"""Flags as people type them: nanoGPT's style, other programs' names, typos, the same flag twice."""

import re

import pytest

import sample
import train
from gptjax.app import foreign_flags, sample_flags
from gptjax.app.flags import FlagParser
from gptjax.app.train_flags import new_config, parse
from gptjax.errors import InputError
from gptjax.presets import PRESETS, changed
from gptjax.store import runs
from gptjax.text.shell import found

from conftest import tiny

KNOWN = {"train": PRESETS["shakespeare"], "sample": sample_flags.DEFAULTS}


def train_flags(*argv: str) -> dict:
    return parse(list(argv), found())


def parser_of(script: str) -> FlagParser:
    """Captures the parser that a script makes."""
    caught = []

    class Caught(FlagParser):
        def parse(self, argv):
            caught.append(self)
            return super().parse(argv)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("gptjax.app.train_flags", "gptjax.app.sample_flags"):
            patch.setattr(f"{module}.FlagParser", Caught)
        (parse if script == "train" else sample_flags.parse)([], found())
    return caught[0]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        (["--bias"], True),
        (["--bias=True"], True),
        (["--bias", "true"], True),
        (["--bias=1"], True),
        (["--bias=False"], False),
        (["--bias", "false"], False),
        (["--bias", "no"], False),
        (["--bias=off"], False),
        (["--no-bias"], False),
        (["--no_bias"], False),
        (["--no-bias=true"], False),
        (["--no-bias", "False"], True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("around", [[], ["--seed", "3"]])
def test_a_switch_takes_true_and_false(typed, value, around):
    expected = {"bias": value} | ({"seed": 3} if around else {})
    assert train_flags(*around, *typed) == expected
    assert train_flags(*typed, *around) == expected


def test_every_switch_does():
    for field in ("resume", "overwrite", "eval_only", "remat", "qkv_bias", "deterministic"):
        assert train_flags(f"--{field}=False") == {field: False}
        assert train_flags(f"--{field}", "True") == {field: True}


@pytest.mark.parametrize("typed", [["--bias=maybe"], ["--bias", "maybe"], ["--bias="]])
def test_a_switch_takes_nothing_else(typed, refused):
    assert "must be true or false, or be left out" in refused(train, *typed)
    assert f"--bias {typed[-1].removeprefix('--bias=')!r}" in refused(train, *typed)


def test_resume_false_is_a_new_run(text_file, tmp_path):
    flags = tiny("--max-iters", 1, "--data", text_file, "--out-dir", tmp_path / "run")
    assert train.main([*flags, "--resume=False", "--eval_only=False"]) == 0
    assert runs.is_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--seed", "1", "--seed", "2"], "--seed was given twice, as 1 and as 2: give it once"),
        (["--seed=1", "--max-iters", "3", "--seed=2"], "--seed was given twice"),
        (["--n-layer=1", "--n_layer=2"], "--n-layer was given twice, as 1 and as 2"),
        (["--bias", "--no-bias"], "--bias was given twice, as yes and as no"),
        (["--bias=false", "--bias"], "--bias was given twice, as no and as yes"),
        (["--preset", "head", "--preset", "bigram"], "--preset was given twice, as head"),
        (["--data", "a", "--data", "b"], "--data was given twice, as a and as b"),
        (["--dtype", "float32", "--dtype", "bfloat16"], "--dtype was given twice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_with_two_values_is_refused(typed, said, refused):
    """The last one used to win silently."""
    nowhere = [] if "--data" in typed else ["--data", "no such file"]  # so that no run is trained
    assert said in refused(train, *typed, *nowhere)


def test_sample_pys_flags_likewise(refused):
    for flag, values in {"--step": "best latest", "--top-k": "1 2", "--score": "a b"}.items():
        one, two = values.split()
        assert f"{flag} was given twice, as {one} and as {two}" in refused(
            sample, flag, one, flag, two
        )


def test_the_same_value_twice_is_one_value():
    assert train_flags("--seed", "1", "--seed=1") == {"seed": 1}
    asked = sample_flags.parse(["--prompt", "a", "--stop", "b", "--stop", "c"], found())
    assert (asked.samples.prompt, asked.samples.stop) == (("a",), ("b", "c"))


@pytest.mark.parametrize("script", ["train", "sample"])
def test_other_programs_flags_are_told_what_to_do_here(script, refused):
    """nanoGPT's settings, and each flag in the advice must exist."""
    parser = parser_of(script)
    table = getattr(foreign_flags, script.upper())
    for flag, advice in table.items():
        ours = parser._option_string_actions
        assert flag not in ours
        for value, line in {"": advice}.items() if isinstance(advice, str) else advice.items():
            for typed in ([f"{flag}={value}"], [flag.replace("-", "_").replace("__", "--"), value]):
                error = refused({"train": train, "sample": sample}[script], *typed)
                assert f"there is no {flag} here: {line}" in error
            named = re.findall(r"(?<!\S)--[a-z][a-z-]+", line.replace("sample.py --from", "--"))
            assert set(named) - {"--huggingface"} <= ours.keys()


@pytest.mark.parametrize(
    ("script", "typed", "said"),
    [
        (train, ["--device=cuda"], "JAX_PLATFORMS=cpu before the command"),
        (train, ["--compile=False"], "always compiled: leave it out"),
        (train, ["--init_from=resume"], "--resume continues"),
        (train, ["--init_from=scratch"], "a new run starts from scratch: leave it out"),
        (train, ["--init_from", "gpt2-xl"], "hf download openai-community/gpt2-xl"),
        (train, ["--decay_lr=False"], "--min-lr equal to --learning-rate"),
        (train, ["--wandb_log=True"], "metrics.jsonl"),
        (train, ["config/train_gpt2.py"], "is not a flag: settings are flags, or a --preset"),
        (sample, ["--start=\n"], "--prompt TEXT"),
        (sample, ["--init_from=gpt2"], "--from-huggingface FOLDER"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nanogpts_command_lines(script, typed, said, refused):
    assert said in refused(script, *typed)


SLIPS = {
    "--tempature": "--temperature",
    "--n-layr": "--n-layer",
    "--layers": "--n-layer",
    "--lr": "--learning-rate",
    "--LR": "--learning-rate",
    "--epochs": "--max-iters",
    "--iters": "--max-iters",
    "--batchsize": "--batch-size",
    "--output_dir": "--out-dir",
    "-seed": "--seed",
    "\u2013seed": "--seed",
    "\u2014max-iters": "--max-iters",
    "--Seed": "--seed",
    "--no-biass": "--no-bias",
    "--decay-all": "",
    "--compil": "",
    "--verbose": "",
    "--gpu": "",
    "--quux": "",
    "--no-cache": "",
    "-v": "",
}


@pytest.mark.parametrize(("typed", "meant"), SLIPS.items())
def test_did_you_mean(typed, meant):
    """The error used to suggest --optimizer for --compile, and --overwrite for --version."""
    for parse_flags in (train_flags, lambda *argv: sample_flags.parse(list(argv), found())):
        with pytest.raises(InputError) as caught:
            parse_flags(typed, "1")
        said = re.findall("did you mean (.*)\\?", str(caught.value))
        known = parser_of("train" if parse_flags is train_flags else "sample")
        if meant in known._option_string_actions or not meant:
            assert said == ([meant] if meant else [])


@pytest.mark.parametrize("script", ["train", "sample"])
def test_a_letter_wrong_finds_every_flag(script):
    parser = parser_of(script)
    for flag in parser._option_string_actions:
        if len(flag) > 8 and not flag.startswith("--no-"):
            for slip in (flag[:4] + flag[5:], flag[:5] + flag[4:], flag[:-1], flag + "s"):
                if slip not in parser._option_string_actions:
                    assert parser._nearest(slip) == flag, slip


def test_every_other_name_is_of_a_flag_that_exists():
    known = {flag for name in KNOWN for flag in parser_of(name)._option_string_actions}
    assert {f"--{name}" for name in foreign_flags.OTHER_NAMES.values()} <= known
    assert not {f"--{name}" for name in foreign_flags.OTHER_NAMES} & known


def test_min_lr_follows_a_learning_rate_that_was_typed(refused):
    """`--preset shakespeare --learning-rate 5e-5` was refused because of a default --min-lr."""
    train_config = new_config({"preset": "shakespeare", "learning_rate": 5e-5}).train
    assert (train_config.learning_rate, train_config.min_lr) == (5e-5, pytest.approx(5e-6))
    assert new_config({"preset": "shakespeare", "learning_rate": 1.0}).train.min_lr == 0.1
    given = {"preset": "shakespeare", "learning_rate": 5e-5, "min_lr": 1e-5}
    assert new_config(given).train.min_lr == 1e-5
    error = refused(train, "--learning-rate", "5e-5", "--min-lr", "1e-4")
    assert "--min-lr (0.0001) must be at most learning_rate (5e-05): give a smaller min_lr" in error


def test_another_optimizer_brings_its_learning_rate():
    """`--optimizer adamw` once kept Muon's 0.02 in the CPU's preset: the loss was 0.15 higher."""
    own = new_config({"preset": "shakespeare-cpu", "optimizer": "adamw"}).train
    assert (own.learning_rate, own.min_lr) == (4e-3, 0.0)
    typed = {"preset": "shakespeare-cpu", "optimizer": "adamw", "learning_rate": 1e-2}
    assert new_config(typed).train.learning_rate == 1e-2
    stored = PRESETS["shakespeare-cpu"].replace(optimizer="adamw", learning_rate=1e-2)
    assert changed(stored, {"optimizer": "adamw"}) == stored, "a resume repeats its flags"
    assert new_config({"preset": "shakespeare", "optimizer": "muon"}).train.learning_rate == 1e-3


def test_a_rate_that_was_zero_may_be_changed_and_leaves_min_lr_at_zero():
    still = PRESETS["shakespeare"].replace(learning_rate=0.0, min_lr=0.0)
    train_config = changed(still, {"learning_rate": 1e-3}).train
    assert (train_config.learning_rate, train_config.min_lr) == (1e-3, 0.0)


@pytest.mark.parametrize("name", PRESETS)
def test_min_lr_stays_what_it_is_where_the_rate_does(name):
    preset = PRESETS[name]
    same = {"learning_rate": preset.train.learning_rate}
    assert changed(preset, same) == preset
    assert changed(preset, {}) == preset
    for rate in (0.0, 1e-30, 5e-5, 1 / 3, 0.7, 3.3e38):
        assert changed(preset, {"learning_rate": rate}).train.min_lr <= rate
