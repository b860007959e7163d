"""Pictures of what models attend to. Each function draws one file and returns its path."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptjax.app.pictures import matplotlib_defaults, new_figure, save_png
from gptjax.errors import InputError
from gptjax.lecture.averaging import average_by_affinity, softmax_weights, triangular_weights
from gptjax.lecture.positions import similarity
from gptjax.model import attention_weights, config_of
from gptjax.rungs import sinusoids
from gptjax.text.outputs import write_named

Array = jax.Array
TOKENS = 16  # number of tokens that a model generates for the picture of its attention
INCHES_PER_TOKEN = 0.16  # a letter and its margin, legible where a page is 900 pixels wide
DPI = 100


def attention_maps(model: nn.Module, params: Any, x_BT: Any) -> list[Array]:
    """Computes the attention weights of every head of a GPT, block by block.

    The model does not return its attention weights. So this function captures each block's
    normalised inputs, and applies the heads' queries and keys to them again.

    Returns:
        One weights_BHTT per block, float32.

    Raises:
        InputError: the model has no blocks with LayerNorm and heads.
    """
    model_config = config_of(model)
    check_has_attention(model, params)
    applied: Any = model.apply(  # with a capture, `apply` returns two values
        {"params": params},
        x_BT,
        deterministic=True,
        capture_intermediates=lambda module, _: module.name == "ln_1",
    )
    captured = applied[1]
    maps = []
    for i in range(model_config.n_layer):
        x_BTC = captured["intermediates"][f"block_{i}"]["ln_1"]["__call__"][0]
        heads = params[f"block_{i}"]["attn"]["heads"]
        q_HBTD, k_HBTD = (_project(x_BTC, heads[part]) for part in ("query", "key"))
        maps.append(jax.vmap(attention_weights, out_axes=1)(q_HBTD, k_HBTD))
    return maps


def check_has_attention(model: nn.Module, params: Any) -> None:
    """Validates that a model is a GPT.

    Raises:
        InputError: the model has no blocks with LayerNorm and heads.
    """
    blocks = {f"block_{i}" for i in range(config_of(model).n_layer)}
    if not blocks <= params.keys() or "ln_f" not in params:
        raise InputError("attention is drawn for a GPT: a run of --preset layernorm or later")


def _project(x_BTC: Array, layer: dict[str, Array]) -> Array:
    y_HBTD = jnp.einsum("btc,hcd->hbtd", x_BTC, layer["kernel"])
    return y_HBTD + layer["bias"][:, None, None, :] if "bias" in layer else y_HBTD


@matplotlib_defaults()
def draw_averaging(path: Path, T: int = 8) -> Path:
    """Draws the weights of three averages: two equal ones, and one that the tokens decide."""
    x_key, *keys = jax.random.split(jax.random.key(1337), 4)
    x_BTC = jax.random.normal(x_key, (1, T, 32))
    query_CD, key_CD, value_CD = (jax.random.normal(k, (32, 16)) * 0.3 for k in keys)
    _, weights_BTT = average_by_affinity(x_BTC, query_CD, key_CD, value_CD)
    shown = {
        "lower triangle, rows divided": triangular_weights(T),
        "softmax of masked zeros": softmax_weights(T),
        "self-attention": weights_BTT[0],
    }
    figure = new_figure(9, 3.2)
    images = []
    for axes, (title, weights) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axes.set_title(title, fontsize=10)
        images.append(axes.imshow(np.asarray(weights), vmin=0, vmax=1, cmap="Blues"))
        axes.set_xlabel("looked at")
        axes.set_ylabel("looking")
    figure.colorbar(images[0], ax=figure.axes, shrink=0.8)
    return _save(figure, path)


def draw_sinusoids(path: Path, T: int = 64, C: int = 32) -> Path:
    """Draws the Transformer paper's table of positions."""
    return _draw_table(path, sinusoids(T, C), "sinusoids", 1.0)


@matplotlib_defaults()
def draw_positions(path: Path, table_TC: np.ndarray) -> Path:
    """Draws a learned table of positions, and the similarity of its rows."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    height = float(np.abs(table_TC).max())
    image = left.imshow(table_TC, aspect="auto", cmap="RdBu", vmin=-height, vmax=height)
    left.set_title("learned table", fontsize=10)
    left.set_xlabel("channel")
    left.set_ylabel("position")
    figure.colorbar(image, ax=left)
    image = right.imshow(similarity(table_TC), cmap="RdBu", vmin=-1, vmax=1)
    right.set_title("cosine similarity of its rows", fontsize=10)
    right.set_xlabel("position")
    right.set_ylabel("position")
    figure.colorbar(image, ax=right)
    return _save(figure, path)


@matplotlib_defaults()
def draw_attention(
    path: Path, model: nn.Module, params: Any, ids: np.ndarray, labels: list[str]
) -> Path:
    """Draws a map for every head, with a row for every block.

    Args:
        ids: (T,) ids of the text, with T at most block_size.
        labels: the text of each token.
    """
    maps = [np.asarray(weights[0]) for weights in attention_maps(model, params, ids[None])]
    letters = [label.replace("\n", "↵").replace(" ", "·").replace("$", r"\$") for label in labels]
    n_layer, n_head = len(maps), len(maps[0])
    side = max(1.8, INCHES_PER_TOKEN * len(ids))
    figure = new_figure(side * n_head, (side + 0.3) * n_layer)
    grid = figure.subplots(n_layer, n_head, squeeze=False)
    for i, weights_HTT in enumerate(maps):
        for h, weights_TT in enumerate(weights_HTT):
            axes = grid[i][h]
            axes.imshow(weights_TT, cmap="Blues", vmin=0)
            axes.set_title(f"block {i}, head {h}", fontsize=10)
            axes.set_xticks(range(len(letters)), letters, fontsize=9)
            axes.set_yticks(range(len(letters)), letters, fontsize=9)
            axes.tick_params(length=0, pad=2)
            if max(map(len, labels)) > 1:
                axes.tick_params(axis="x", rotation=90)
    return _save(figure, path)


@matplotlib_defaults()
def _draw_table(path: Path, table_TC: np.ndarray, title: str, height: float) -> Path:
    figure = new_figure(5, 3.6)
    axes = figure.subplots()
    image = axes.imshow(table_TC, aspect="auto", cmap="RdBu", vmin=-height, vmax=height)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("channel")
    axes.set_ylabel("position")
    figure.colorbar(image, ax=axes)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    save_png(figure, path, DPI, write_named)
    return path
