"""The page's JavaScript, run in Node, computes the same as Python, for models of every kind."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from gptjax.inference.scoring import score
from gptjax.model import attention_weights

from page_models import KINDS, NODE, Made, in_node, make, python_greedy, python_logits, texts

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node")

GREEDY = 200
SIX = ("default", "gpt2", "odd", "bigram", "feedforward", "residual")
ALL = [name if name in SIX else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
LOOKING = [name for name in ALL if name != "bigram"]


def near(loss: float):
    return pytest.approx(loss, rel=1e-5, abs=1e-5)


def window(made: Made) -> list[int]:
    """A text as long as the model's context."""
    return texts(made)[-1][-made.run.config.model.block_size :]


def heads_of(params) -> list[tuple[str, str]]:
    """The tree paths of the value kernels: one for each layer."""
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    paths = ["/".join(k.key for k in path) for path, _ in flat]
    return sorted(path for path in paths if path.endswith("value/kernel"))


def without(params, silenced, path=""):
    """Sets some arrays of the parameters, or one head of them, to 0: {path: head or None}."""
    if isinstance(params, dict):
        return {k: without(v, silenced, f"{path}/{k}".strip("/")) for k, v in params.items()}
    if path not in silenced:
        return params
    head = silenced[path]
    array = np.array(params)
    array[... if head is None else head] = 0
    return array


def loss_without(made: Made, ids, silenced) -> float:
    run = made.run._replace(params=without(made.run.params, silenced))
    nats = score(run.model, run.params, np.array(ids), stride=1, batch_size=1)
    return nats.nats / nats.tokens


def python_attention(made: Made, ids: list[int]) -> np.ndarray:
    """Weights, (layer, head, T, T), from the queries and keys that Linen captures."""
    run = made.run
    _, captured = run.model.apply(
        {"params": run.params},
        np.array([ids]),
        deterministic=True,
        capture_intermediates=lambda module, _: module.name in ("query", "key"),
        mutable=["intermediates"],
    )
    flat = jax.tree_util.tree_flatten_with_path(captured["intermediates"])[0]
    found = {
        "/".join(str(k.key) for k in path[:-2]): x for path, x in flat if "__call__" in str(path)
    }
    queries = sorted(path for path in found if path.endswith("query"))
    layers = [(found[path], found[path.replace("query", "key")]) for path in queries]
    # A single head has no axis of heads: (B, T, D).
    pairs = [[x if x.ndim == 4 else x[None] for x in pair] for pair in layers]
    return np.array([jax.vmap(attention_weights)(q, k)[:, 0] for q, k in pairs])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return functools.cache(lambda name: make(name, folder))


@pytest.fixture(scope="module")
def answers(made):
    """All values for the tests below, for one kind of model, from one Node process."""

    def ask(name: str) -> dict[str, Any]:
        ids, whole = texts(made(name)), window(made(name))
        calls: list[tuple[str, Any]] = [("logits", {"ids": x}) for x in ids]
        calls += [("greedy", {"ids": x, "count": GREEDY}) for x in (ids[2], ids[-1])]
        calls += [("attention", {"ids": whole}), ("loss", {"ids": whole})]
        for off in (["0.0"], ["0.attention"], ["0.feedforward"]):
            calls.append(("loss", {"ids": whole, "off": off}))
        [results] = in_node([(made(name).page, calls)])
        found = {"logits": results[:20], "greedy": results[20:22]}
        return found | {"attention": results[22], "losses": results[23:]}

    return functools.cache(ask)


@pytest.mark.parametrize("name", ALL)
def test_logits_are_pythons_past_block_size_too(name, made, answers):
    expected = python_logits(made(name).run, texts(made(name)))
    difference = np.abs(np.array(answers(name)["logits"]) - expected).max()
    assert difference <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ALL)
def test_greedy_text_is_pythons(name, made, answers):
    ids = texts(made(name))
    for start, found in zip((ids[2], ids[-1]), answers(name)["greedy"], strict=True):
        assert found == python_greedy(made(name).run, start, GREEDY)


@pytest.mark.parametrize("name", LOOKING)
def test_attention_is_pythons_and_its_rows_sum_to_1(name, made, answers):
    one = made(name)
    found = np.array(answers(name)["attention"])
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found, python_attention(one, window(one)), atol=1e-4)


@pytest.mark.parametrize("name", LOOKING)
def test_a_head_turned_off_gives_the_loss_of_python_without_its_output(name, made, answers):
    one = made(name)
    first = heads_of(one.run.params)[0]
    silenced = {first: 0, first.replace("kernel", "bias"): 0}
    if first.startswith("head/"):
        silenced = dict.fromkeys(silenced)
    whole, off, *_ = answers(name)["losses"]
    assert whole == near(loss_without(one, window(one), {}))
    assert off == near(loss_without(one, window(one), silenced))
    assert abs(whole - off) > 1e-3


@pytest.mark.parametrize("name", ["default", "gpt2", "residual"])
def test_a_part_turned_off_gives_the_loss_of_python_without_what_it_adds(name, made, answers):
    one = made(name)
    for part, found in zip(("attn", "mlp"), answers(name)["losses"][2:], strict=True):
        paths = (f"block_0/{part}/proj/{leaf}" for leaf in ("kernel", "bias"))
        expected = loss_without(one, window(one), dict.fromkeys(paths))
        assert found == near(expected)


def test_float16_pages_compute_with_the_rounded_weights(tmp_path):
    one = make("gpt2", tmp_path, "float16")
    ids = texts(one)
    [found] = in_node([(one.page, [("logits", {"ids": x}) for x in ids])])
    expected = python_logits(one.run, ids)
    assert np.abs(np.array(found) - expected).max() <= 1e-4 * np.abs(expected).max()
    exact = make("gpt2", tmp_path, "float32")
    assert exact.page.stat().st_size > one.page.stat().st_size
    assert np.abs(python_logits(exact.run, ids) - expected).max() > 1e-5
