"""`--init-from`: a new run starts from the weights and the tokenizer of a run or a GPT-2 folder."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

import train
from gptjax import __main__ as program
from gptjax import load_run
from gptjax.app import loop
from gptjax.app.source import first_state, read_source
from gptjax.errors import RunError
from gptjax.inference.adapt import with_block_size
from gptjax.store import runs

from advice import refusal, works
from conftest import TEXT, tiny
from gpt2_folders import make_folder
from outcomes import assert_same_state, metrics
from several import ended, start_together

FINE = "--max-iters 2 --eval-interval 2 --batch-size 2 --gradient-accumulation-steps 1".split()


def leaves(params):
    return {k: np.asarray(v) for k, v in _flat(params)}


def _flat(tree, path=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "my.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def source(text):
    """A run to start from."""
    out = text.parent / "source"
    assert train.main(tiny("--data", text, "--out-dir", out)) == 0
    return out


@pytest.fixture
def started(text, tmp_path):
    """Trains from a source; returns the new run's folder."""

    def start(source, *flags):
        out = tmp_path / "fine"
        given = [*FINE, "--init-from", source, "--data", text, "--out-dir", out, *flags]
        assert train.main([str(x) for x in given]) == 0
        return out

    return start


def test_a_run_starts_from_the_weights_of_another_with_a_shorter_context(source, started, capsys):
    """The frozen parameters show that: they equal the source's, bit for bit."""
    flags = ("--block-size", 8, "--trainable", "ln", "--scan-layers", "--dropout", 0)
    fine = load_run(started(source, *flags), "latest")
    before = load_run(source, "best")
    _, cropped = with_block_size(before.model, before.params, 8)
    old, new = leaves(cropped), leaves(fine.params)
    assert old.keys() == new.keys()
    for name in old:
        assert np.array_equal(old[name], new[name]) == ("ln_" not in name), name
    assert fine.config.init_from == str(source)
    assert fine.config.preset == "gpt2-finetune"
    assert fine.config.model.activation == before.config.model.activation == "relu"
    assert fine.tokenizer.to_dict() == before.tokenizer.to_dict()
    assert f"starting from the weights in {source}" in capsys.readouterr().out


def test_a_resume_needs_no_source_once_there_is_a_checkpoint(source, started, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(source, moved)
    out = started(moved)
    shutil.rmtree(moved)
    assert train.main(["--resume", "--out-dir", str(out), "--max-iters", "4"]) == 0
    assert load_run(out, "latest").step == 4


def test_a_run_that_is_killed_before_its_first_save_needs_no_source(
    source, text, tmp_path, monkeypatch
):
    """The source may have moved, or trained further: the new run already has its weights."""
    moved = shutil.copytree(source, tmp_path / "moved")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    flags = [*FINE, "--init-from", moved, "--data", text, "--scan-layers", "--dropout", 0.1]

    def die(self):
        raise RunError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(loop.Loop, "_dispatch", die)
        assert train.main([str(x) for x in [*flags, "--out-dir", killed]]) == 1
    works(train, *flags, "--out-dir", whole)
    shutil.rmtree(moved)
    works(train, "--resume", "--out-dir", killed)
    assert_same_state(killed, whole)
    names = [sorted(x.name for x in (run / runs.CHECKPOINTS).iterdir()) for run in (killed, whole)]
    assert names == [["0", "2"], ["0", "2"]]


@pytest.mark.slow
def test_without_a_checkpoint_a_resume_starts_from_the_source_again(source, started):
    out = started(source, "--trainable", "ln")
    params = load_run(out, "latest").params
    shutil.rmtree(out / runs.CHECKPOINTS)
    assert train.main(["--resume", "--out-dir", str(out)]) == 0
    again = load_run(out, "latest").params
    for name, array in leaves(params).items():
        assert np.array_equal(array, leaves(again)[name]), name


def test_a_gpt2_folder_gives_its_weights_and_tokenizer(tmp_path, started):
    folder = tmp_path / "gpt2"
    folder.mkdir()
    make_folder(folder)
    before = read_source(folder, print)
    out = started(folder, "--trainable", "ln")
    fine = load_run(out, "latest")
    assert fine.tokenizer.kind == "gpt2"
    assert fine.tokenizer.start_id == 0, "the folder's bos_token_id"
    assert np.array_equal(fine.params["wte"]["embedding"], before.params["wte"]["embedding"])
    shutil.rmtree(folder)
    assert train.main(["--eval-only", "--out-dir", str(out)]) == 0


def test_fresh_moments_are_of_what_is_trained(source):
    found = read_source(source, print)
    run_config = runs.read_run(source)[0].replace(trainable="ln")
    state = first_state(found, run_config, None)
    trained = sum(x.size for name, x in leaves(state.params).items() if "ln_" in name)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * trained
    assert not any(x.any() for x in moments)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--block-size", "32"], "--block-size 32 is more than the 16 positions"),
        (["--n-layer", "2"], "--n-layer 2 contradicts the weights in"),
        (["--activation", "gelu"], "have relu: leave the flag out"),
        (["--tokenizer", "byte"], "--tokenizer byte contradicts the weights in"),
        (["--n-embd", "32", "--n-head", "4"], "contradicts the weights in"),
    ],
)
def test_another_architecture_is_refused_naming_the_flag(source, text, flags, said, refused):
    error = refused(train, "--init-from", str(source), "--data", str(text), *flags)
    assert said in error


def test_a_character_that_the_vocabulary_lacks_is_named_with_its_line(source, text, tmp_path):
    """The line is that in the file, not in the split; for several files, it names the pattern."""
    lines = TEXT.splitlines(keepends=True)
    lines[57] = "a qu\u20acck fox\n"
    (tmp_path / "other.txt").write_text("".join(lines))
    flags = [*FINE, "--out-dir", tmp_path / "run", "--init-from", source, "--data"]
    lacks = "character '\u20ac' (U+20AC) is not among the 40 characters"
    error = refusal(train, *flags, tmp_path / "other.txt")
    assert f"{tmp_path / 'other.txt'}, line 58: {lacks}" in error
    assert f"{tmp_path}/*.txt: {lacks}" in refusal(train, *flags, f"{tmp_path}/*.txt")
    assert "leave it out of the text, or leave out --init-from" in error
    lines[57] = "a quck fox\n"
    (tmp_path / "other.txt").write_text("".join(lines))
    works(train, *flags, tmp_path / "other.txt")


def test_a_source_is_not_overwritten(source, text, tmp_path, refused):
    flags = [*FINE, "--init-from", str(source), "--data", str(text), "--overwrite", "--out-dir"]
    assert "would remove the weights" in refused(train, *flags, str(source / "."))
    assert load_run(source, "best").step
    assert train.main([*flags, str(tmp_path / "another")]) == 0


def test_a_source_that_is_none_is_refused(tmp_path, refused):
    assert "no such folder; download" in refused(train, "--init-from", str(tmp_path / "none"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "only 'gpt2' is supported" in refused(train, "--init-from", str(tmp_path))


def test_advice_about_a_source_is_followed(source, text, tmp_path):
    flags = [*FINE, "--data", text, "--init-from", source, "--out-dir", tmp_path / "run"]
    limit = re.findall(r"the (\d+) positions", refusal(train, *flags, "--block-size", 99))[0]
    works(train, *flags, "--block-size", limit)
    assert "leave out --init-from" in refusal(train, *flags, "--n-layer", 2)
    fresh = ["--data", text, "--out-dir", tmp_path / "fresh", "--n-layer", 2]
    works(train, *tiny(*fresh, "--max-iters", 1))


def test_a_prepared_text_must_have_the_sources_vocabulary(source, text, tmp_path):
    """Training on ids of another vocabulary would give nonsense without an error."""
    for kind in ("char", "byte"):
        out = str(tmp_path / kind)
        assert program.main(["prepare", str(text), "--out", out, "--tokenizer", kind]) == 0
    flags = [*FINE, "--init-from", source, "--out-dir", tmp_path / "run", "--data"]
    error = refusal(train, *flags, tmp_path / "byte")
    assert "prepared with another vocabulary (byte)" in error
    assert "give the original text" in error
    works(train, *flags, text)
    works(train, *flags, tmp_path / "char", "--overwrite")


@pytest.mark.slow
def test_two_processes_start_from_a_source_as_one_does(source, text, tmp_path):
    """They also resume from step 0 without the source: each has saved its part of the weights."""
    moved = shutil.copytree(source, tmp_path / "moved")
    two, one = tmp_path / "two", tmp_path / "one"
    flags = [*FINE, "--learning-rate", "1e-3", "--init-from", moved, "--data", text, "--out-dir"]
    found = ended(start_together(*flags, two, "--mesh", "fsdp=2", devices=1))
    assert [status for status, _, _ in found] == [0, 0], found
    assert f"starting from the weights in {moved}" in found[0][1]
    works(train, *flags, one)
    losses = [[x["train_loss"] for x in metrics(run)] for run in (two, one)]
    np.testing.assert_allclose(*losses, rtol=0, atol=5e-6)

    shutil.rmtree(moved)
    shutil.rmtree(two / runs.CHECKPOINTS / "2")
    found = ended(start_together("--out-dir", two, "--resume", devices=1))
    assert [status for status, _, _ in found] == [0, 0], found
    assert "resuming from step 0" in found[0][1]
    after = [leaves(load_run(run, "latest").params) for run in (two, one)]
    for name, array in after[0].items():
        np.testing.assert_allclose(array, after[1][name], atol=1e-4, err_msg=name)
