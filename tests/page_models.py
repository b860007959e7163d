"""Small models of every kind that a page can contain, their pages, and Python's results."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.config import GPTConfig, RunConfig
from gptjax.inference.generation import generate
from gptjax.model import forward
from gptjax.page.build import build_page
from gptjax.page.weights import rounded
from gptjax.store import runs
from gptjax.tokenizer import CharTokenizer

NODE = shutil.which("node")
CHARACTERS = "".join(map(chr, range(32, 32 + 39))) + "é\U0001f600"
SMALL = GPTConfig(vocab_size=len(CHARACTERS), block_size=16, n_layer=2, n_head=2, n_embd=16)
LIKE_GPT2 = dataclasses.replace(
    SMALL, n_head=4, qkv_bias=True, tie_embeddings=True, head_bias=False, activation="gelu_tanh"
)
KINDS: dict[str, tuple[str, GPTConfig]] = {
    "default": ("gpt", SMALL),
    "gpt2": ("gpt", LIKE_GPT2),
    "odd": (
        "gpt",
        dataclasses.replace(
            SMALL, block_size=7, n_layer=1, n_head=1, n_embd=13, activation="gelu", ln_bias=False
        ),
    ),
    "bigram": ("bigram", SMALL),
    "feedforward": ("feedforward", dataclasses.replace(SMALL, n_layer=1)),
    "residual": ("residual", SMALL),
    "head": ("head", dataclasses.replace(SMALL, n_layer=1, n_head=1)),
    "multihead": ("multihead", dataclasses.replace(SMALL, n_layer=1)),
    "sinusoids": ("sinusoids", SMALL),
    "without-positions": ("without-positions", SMALL),
    "tied-with-bias": ("gpt", dataclasses.replace(LIKE_GPT2, head_bias=True, bias=False)),
}


class Made(NamedTuple):
    """A model, and the path of its page."""

    run: runs.Run
    page: Path


def make(name: str, folder: Path, dtype: Any = "float32") -> Made:
    """A model with random parameters, so large that heads differ and the text does not repeat."""
    model_name, model_config = KINDS[name]
    run_config = RunConfig(model=model_config, model_name=model_name)
    model = runs.make_model(run_config)
    shapes = runs.abstract_params(model)
    random = np.random.default_rng(sum(map(ord, name)))

    def draw(path: Any, x: Any) -> Any:
        scale = x.shape[-2] ** -0.5 if x.ndim > 1 else 0.3
        around = 1.0 if path[-1].key == "scale" else 0.0
        size = 0.5 if path[-1].key == "embedding" else 2 * scale
        return (around + size * random.standard_normal(x.shape)).astype("f4")

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    run = runs.Run(model, run_config, params, CharTokenizer(CHARACTERS), 1)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{name}-{dtype}.html"
    page.write_text(build_page(folder, run, dtype), encoding="utf-8")
    if dtype == "float16":
        run = run._replace(params=rounded(params))
    return Made(run, page)


def in_node(asked: list[tuple[Path, list[tuple[str, Any]]]]) -> list[list[Any]]:
    """Calls the workers of all pages in one Node process; returns their answers."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(Path(__file__).with_name("page_in_node.mjs"))],
        input=json.dumps([{"page": str(page), "calls": calls} for page, calls in asked]),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def texts(made: Made, count: int = 20) -> list[list[int]]:
    """Texts of every length up to beyond block_size."""
    config = made.run.config.model
    random = np.random.default_rng(1)
    lengths = [1 + i * (config.block_size + 3) // (count - 1) for i in range(count)]
    return [random.integers(0, config.vocab_size, n).tolist() for n in lengths]


def python_logits(run: runs.Run, ids: list[list[int]]) -> np.ndarray:
    """Logits after the last token of each text, conditioned on its last block_size tokens."""
    T = run.config.model.block_size
    windows = [x[-T:] for x in ids]
    x_BT = np.array([x + [0] * (T - len(x)) for x in windows])
    logits_BTV = jax.jit(lambda params, x: forward(run.model, params, x))(run.params, x_BT)
    return np.array([logits_BTV[i, len(x) - 1] for i, x in enumerate(windows)])


def python_greedy(run: runs.Run, ids: list[int], count: int) -> list[int]:
    """Greedy text of `sample.py`."""
    key = jax.random.key(0)
    y = generate(
        run.model,
        run.params,
        np.array([ids]),
        key,
        max_new_tokens=count,
        temperature=0.0,
        window="chunked",
    )
    return np.asarray(y)[0, len(ids) :].tolist()
