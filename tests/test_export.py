"""`gptjax export`: folders that transformers, nanoGPT's model and the lecture's load."""

import dataclasses
import json

import numpy as np
import pytest

import train
from gptjax import load_run
from gptjax.app import export
from gptjax.errors import InputError
from gptjax.model import forward

from conftest import TEXT, tiny

TO_HUGGINGFACE = "--no-head-bias --tie-embeddings --activation gelu_tanh".split()
IDS = np.arange(12)[None] % 9


@pytest.fixture(scope="module")
def train_with(tmp_path_factory):
    """Trains a tiny run with some flags; returns its folder."""

    def make(*flags):
        folder = tmp_path_factory.mktemp("run")
        (folder / "my.txt").write_text(TEXT)
        out = folder / "run"
        new = tiny("--data", folder / "my.txt", "--out-dir", out, "--max-iters", 2)
        assert train.main([*new, *flags]) == 0
        return out

    return make


def exported(run, to, out):
    pytest.importorskip("safetensors", reason="needs the extra `huggingface`")
    pytest.importorskip("tokenizers", reason="needs the extra `huggingface`")
    assert export.main([str(run), "--to", to, "--out", str(out)]) == 0
    loaded = load_run(run)
    return loaded, np.asarray(forward(loaded.model, loaded.params, IDS))


def assert_close(theirs, ours):
    assert np.abs(theirs - ours).max() < 1e-5 * np.abs(ours).max()


@pytest.mark.parametrize(
    "flags",
    [
        TO_HUGGINGFACE,
        pytest.param(["--no-head-bias", "--no-bias", "--no-ln-bias"], marks=pytest.mark.slow),
        pytest.param(
            [*TO_HUGGINGFACE, "--qkv-bias", "--tokenizer", "byte"], marks=pytest.mark.slow
        ),
        pytest.param(
            [*TO_HUGGINGFACE, "--tokenizer", "bpe", "--vocab-size", "300"], marks=pytest.mark.slow
        ),
    ],
)
def test_transformers_loads_a_run(flags, train_with, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `compare`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `compare`")
    loaded, ours = exported(train_with(*flags), "huggingface", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert_close(model(torch.from_numpy(IDS)).logits.numpy(), ours)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "17: the lazy fox\njumps  over\n"
    assert (
        tokenizer.encode(text, add_special_tokens=False) == loaded.tokenizer.encode(text).tolist()
    )
    assert tokenizer.decode(loaded.tokenizer.encode(text).tolist()) == text
    assert "nats per token" in (tmp_path / "out" / "README.md").read_text()


def test_the_lectures_model_loads_a_run(train_with, tmp_path):
    """A preset's defaults: a bias in the output layer, ReLU. Loads as load.py says."""
    torch = pytest.importorskip("torch", reason="needs the extra `compare`")
    from safetensors.torch import load_file
    from twins import LectureGPT

    run = train_with()
    loaded, ours = exported(run, "lecture", tmp_path / "out")
    model = LectureGPT(loaded.config.model).eval()
    model.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    with torch.no_grad():
        assert_close(model(torch.from_numpy(IDS)).numpy(), ours)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["n_head"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("biases", [[], ["--no-bias", "--no-ln-bias"]])
def test_a_torch_twin_of_nanogpt_loads_a_run(biases, train_with, tmp_path):
    """nanoGPT has biases everywhere or nowhere: the run's queries have no biases, and get zeros."""
    torch = pytest.importorskip("torch", reason="needs the extra `compare`")
    from safetensors.torch import load_file

    from compare.torch_gpt import TorchGPT

    flags = [*TO_HUGGINGFACE[:2], "--activation", "gelu", *biases]
    loaded, ours = exported(train_with(*flags), "nanogpt", tmp_path / "out")
    entries = load_file(tmp_path / "out" / "model.safetensors")
    model = TorchGPT(dataclasses.replace(loaded.config.model, qkv_bias=not biases)).eval()
    model.load_state_dict({k.removeprefix("transformer."): v for k, v in entries.items()})
    with torch.no_grad():
        assert_close(model(torch.from_numpy(IDS)).numpy(), ours)
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    assert stored["bias"] == (not biases)


def test_what_a_format_cannot_hold_is_refused_naming_the_flag(finished_run, tmp_path, capsys):
    for to, flag in (("huggingface", "--no-head-bias"), ("nanogpt", "--activation gelu")):
        assert export.main([str(finished_run), "--to", to, "--out", str(tmp_path / "out")]) == 2
        assert flag in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(finished_run, tmp_path, capsys):
    (tmp_path / "notes").write_text("mine")
    argv = [str(finished_run), "--to", "lecture", "--out"]
    assert export.main([*argv, str(tmp_path)]) == 2
    assert "is not empty: give the path of a new folder" in capsys.readouterr().err
    assert [x.name for x in tmp_path.iterdir()] == ["notes"]
    pytest.importorskip("safetensors", reason="needs the extra `huggingface`")
    assert export.main([*argv, str(tmp_path / "new")]) == 0
    assert export.main([str(finished_run)]) == 2
    assert "RUN --to FORMAT --out DIR" in capsys.readouterr().err


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        export.write_folder(tmp_path / "out", {"config.json": "{}", "no/such": ""})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        export.check_free(tmp_path / "file")
