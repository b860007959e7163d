"""The pictures show what the model computes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.lecture import __main__ as lecture
from gptjax.lecture import pictures
from gptjax.model import GPT
from gptjax.rungs import RUNGS
from gptjax.training import init_params


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_drawn_weights_are_those_that_the_model_attends_with(qkv_bias):
    """With them, the first block's attention can be computed by hand."""
    model_config = GPTConfig(
        vocab_size=7, block_size=6, n_layer=1, n_head=2, n_embd=8, dropout=0.0, qkv_bias=qkv_bias
    )
    model = GPT(model_config)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).normal(0, 0.3, leaf.shape), "f4"),
        jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0)),
    )
    x_BT = jnp.array([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    (weights_BHTT,) = pictures.attention_maps(model, params, x_BT)
    assert weights_BHTT.shape == (2, 2, 6, 6)

    _, seen = model.apply({"params": params}, x_BT, deterministic=True, capture_intermediates=True)  # type: ignore[misc]
    block = seen["intermediates"]["block_0"]
    value = params["block_0"]["attn"]["heads"]["value"]
    v_BHTD = jnp.einsum("btc,hcd->bhtd", block["ln_1"]["__call__"][0], value["kernel"])
    if qkv_bias:
        v_BHTD = v_BHTD + value["bias"][None, :, None, :]
    y_BTC = (weights_BHTT @ v_BHTD).transpose(0, 2, 1, 3).reshape(2, 6, 8)
    proj = params["block_0"]["attn"]["proj"]
    expected = y_BTC @ proj["kernel"] + proj["bias"][None, None]
    np.testing.assert_allclose(block["attn"]["__call__"][0], expected, atol=1e-5)


def test_a_model_without_blocks_has_no_attention_to_draw():
    model_config = GPTConfig(vocab_size=7, block_size=6, n_layer=1, n_head=2, n_embd=8)
    params = jax.eval_shape(
        partial(init_params, RUNGS["residual"](model_config)), jax.random.key(0)
    )
    with pytest.raises(InputError, match="layernorm"):
        pictures.attention_maps(
            RUNGS["residual"](model_config), params, jnp.zeros((1, 4), jnp.int32)
        )


def test_pictures_go_to_the_folder_of_runs_unless_told(tmp_path, monkeypatch):
    """The pictures used to replace the files in the clone's docs/."""
    monkeypatch.chdir(tmp_path)
    assert lecture.main(["--pictures"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    drawn = sorted(path.name for path in (tmp_path / "runs" / "lecture").iterdir())
    assert drawn == ["averaging.png", "sinusoids.png"]


def test_a_run_of_any_vocabulary_has_its_attention_drawn(finished_run, tmp_path, monkeypatch):
    """The text has no capitals, but the line that used to be drawn starts with ROMEO."""
    labels = []
    monkeypatch.setattr(
        pictures, "draw_attention", lambda path, model, params, ids, of: labels.append(of) or path
    )
    asked = ["--pictures", "--run", str(finished_run), "--out", str(tmp_path)]
    assert lecture.main(asked) == 0
    assert lecture.main([*asked, "--text", "the fox"]) == 0
    written, given = labels
    assert len(written) == pictures.TOKENS
    assert given == list("the fox")


def test_letters_keep_their_size_in_a_longer_text(tmp_path, monkeypatch):
    """Letters of 5 points in a picture of 1,040 pixels used to be unreadable."""
    figures = []
    monkeypatch.setattr(pictures, "save_png", lambda figure, *_: figures.append(figure))
    model_config = GPTConfig(vocab_size=7, block_size=40, n_layer=1, n_head=2, n_embd=8)
    model = GPT(model_config)
    params = init_params(model, jax.random.key(0))
    for n in (4, 40):
        ids = np.zeros(n, np.int32)
        pictures.draw_attention(tmp_path / "a.png", model, params, ids, ["a"] * n)
    for n, figure in zip((4, 40), figures, strict=True):
        assert figure.get_figwidth() / 2 / n >= pictures.INCHES_PER_TOKEN
        assert figure.axes[0].get_xticklabels()[0].get_fontsize() >= 9


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--text", "fox"], "--text is what the model of --run reads: add --run"),
        (["--run", "RUN", "--text", ""], "--text has 0 tokens: it must have 1 to 16"),
        (["--run", "RUN", "--text", "fox " * 9], "--text has 36 tokens: it must have 1 to 16"),
        (["--run", "RUN", "--text", "ROMEO"], "'R'"),
    ],
)
def test_a_text_that_cannot_be_drawn_is_refused(flags, said, finished_run, tmp_path, capsys):
    flags = [str(finished_run) if flag == "RUN" else flag for flag in flags]
    assert lecture.main(["--pictures", "--out", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
