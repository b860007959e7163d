"""The page's drawings and its descriptions of heads: Node imports the modules."""

import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from gptjax.inference.sampling import Sampling, filter_logits
from gptjax.page import build

from page_models import NODE

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node")
PAGE = Path(build.__file__).parent


def in_node(body: str, **given):
    """Runs JavaScript that can use all of the worker's modules; returns the result."""
    names = ("sampling", "analysis", "weights", "layers")
    imports = [f"import * as {name} from {json.dumps(f'{PAGE}/{name}.mjs')};" for name in names]
    values = [f"const {name} = {json.dumps(value)};" for name, value in given.items()]
    printed = f"process.stdout.write(JSON.stringify((() => {{ {body} }})()))"
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", "\n".join([*imports, *values, printed])],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 0.0},
    {"top_k": 3},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"temperature": 1.7, "top_k": 6, "top_p": 0.9, "min_p": 0.05},
]


def test_tokens_are_drawn_from_pythons_distribution():
    """With evenly spaced random numbers, so that shares are exact to one draw."""
    logits = np.float32([0.3, 2.0, -1.0, 1.9, 2.0, 0.0, -4.0, 1.0])
    draws = 2000
    asked = [
        {
            "temperature": one.get("temperature", 1.0),
            "topK": one.get("top_k", 8),
            "topP": one.get("top_p", 1.0),
            "minP": one.get("min_p", 0.0),
        }
        for one in SETTINGS
    ]
    found = in_node(
        "return asked.map((settings) => Array.from({ length: draws }, (_, i) =>"
        " sampling.draw(logits, settings, (i + 0.5) / draws)))",
        **{"asked": asked, "logits": logits.tolist(), "draws": draws},
    )
    for one, ids in zip(SETTINGS, found, strict=True):
        if one.get("temperature") == 0:
            expected = np.eye(8)[1]
        else:
            filtered = filter_logits(logits[None], Sampling(**one).traced())
            expected = np.asarray(jax.nn.softmax(filtered))[0]
        shares = np.bincount(ids, minlength=8) / draws
        np.testing.assert_allclose(shares, expected, atol=2 / draws, err_msg=str(one))


def test_random_numbers_are_even_and_follow_from_the_seed():
    found = in_node(
        "const of = (seed) => { const random = new sampling.Random(seed);"
        " return Array.from({ length: 4000 }, () => random.next()); };"
        "return [of(1), of(1), of(2)]"
    )
    assert found[0] == found[1] != found[2]
    assert min(found[0]) >= 0
    assert max(found[0]) < 1
    counts = np.histogram(found[0], 10, (0, 1))[0]
    assert abs(counts - 400).max() < 100
    assert abs(np.corrcoef(found[0][:-1], found[0][1:])[0, 1]) < 0.05


def test_heads_of_known_habits_are_named():
    """Attention made by hand: each head has weight 0.9 at one place, and the rest at the first."""
    pieces = list("ab cd\nab cd ab x")
    ids = [sorted(set(pieces)).index(piece) for piece in pieces]
    T = len(pieces)
    last_space = [max([s for s in range(t) if pieces[s] in " \n"], default=0) for t in range(T)]
    line = [6 if t > 6 else 0 for t in range(T)]
    same = [max([s for s in range(t) if ids[s] == ids[t]], default=-1) for t in range(T)]
    places = {
        "itself": range(T),
        "before": [max(t - 1, 0) for t in range(T)],
        "twoBefore": [max(t - 2, 0) for t in range(T)],
        "space": last_space,
        "line": line,
        "same": [max(s, 0) for s in same],
        "afterSame": [min(s + 1, t) for t, s in enumerate(same)],
    }
    heads = []
    for place in places.values():
        weights = np.zeros((T, T))
        weights[:, 0] += 0.1
        weights[np.arange(T), place] += 0.9
        heads.append(weights.ravel().tolist())
    [found] = in_node(
        "return analysis.habits([heads], ids, pieces)", heads=heads, ids=ids, pieces=pieces
    )
    for name, shares in zip(places, found, strict=True):
        assert max(shares, key=shares.get) == name, (name, shares)
        assert shares[name] > 0.85


def test_float16_is_read_as_numpy_reads_it():
    bits = np.arange(0, 2**16, 7, dtype=np.uint16)
    numbers = bits.view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    found = in_node(
        "const tensors = weights.readTensors([{ path: 'x', shape: [bytes.length / 2] }], 'float16',"
        " Uint8Array.from(bytes)); return Array.from(tensors.get('x').data)",
        bytes=list(numbers.tobytes()),
    )
    np.testing.assert_array_equal(np.array(found), numbers.astype(np.float64))


def test_the_exact_gelu_is_exact_to_float32():
    x = np.linspace(-6, 6, 241)
    found = in_node("return x.map(layers.ACTIVATIONS.gelu)", x=x.tolist())
    expected = jax.nn.gelu(x.astype(np.float32), approximate=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)
