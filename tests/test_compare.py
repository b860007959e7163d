"""The contestants: the same GPT written four ways, with all fields of the configuration."""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from compare import __main__ as command
from compare import contestants, ease, linen_gpt, nnx_gpt, plain_gpt, tuned, weights
from compare.contestants import CONTESTANTS, SERVED, ways_to_sample
from compare.measuring import equality, experiment, measurement
from compare.sampling import Settings
from compare.trees import flatten
from gptjax.backends import execution
from gptjax.errors import ConfigError
from gptjax.text.corpora import Text

from conftest import tiny_config

ROOT = Path(__file__).resolve().parent.parent
TORCH = importlib.util.find_spec("torch") is not None
OTHERS = ["nnx", "plain", *(["torch"] if TORCH else [])]
TUNED = ["linen-tuned", "nnx-tuned", "plain-tuned"]
# Together, the two have two values of each field, with and without each kind of bias.
LEFT = {
    "activation": "gelu",
    "qkv_bias": True,
    "tie_embeddings": True,
    "scaled_residual_init": True,
}
RIGHT = {"activation": "gelu_tanh", "bias": False, "ln_bias": False, "head_bias": False}


@pytest.fixture(autouse=True)
def surroundings():
    """JAX's default broadcasting, which plain_gpt.py is written for, and one thread of PyTorch."""
    if TORCH:
        import torch

        torch.set_num_threads(1)  # two threads that wait for each other are slow on a busy machine
    with jax.numpy_rank_promotion("allow"):
        yield


def problem(**changes):
    """Makes weights far from zero, biases too, and a batch of ids."""
    config = tiny_config(**changes)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: (rng.normal(size=a.shape) * 0.2 + (a.shape == ())).astype(np.float32),
        weights.shapes(config.model),
    )
    ids = rng.integers(0, 11, (2, 4, 9), dtype=np.int32)
    return config, params, np.ascontiguousarray(ids[..., :-1]), np.ascontiguousarray(ids[..., 1:])


def filled(name, config, params):
    contestant = contestants.build(name, config)
    contestant.set_weights(weights.to_native(CONTESTANTS[name].design, config.model, params))
    return contestant


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        pytest.param(OTHERS, {}, marks=SLOW, id="lecture"),
        pytest.param(OTHERS, LEFT, id="left"),
        pytest.param(OTHERS, RIGHT, marks=SLOW, id="right"),
        pytest.param(TUNED, LEFT, marks=SLOW, id="tuned left"),
        pytest.param(TUNED, RIGHT, marks=SLOW, id="tuned right"),
    ],
)
def test_all_have_the_same_logits_and_gradients(names, fields):
    config, params, x, y = problem(**fields)
    ours = filled("linen", config, params)
    logits, gradient = ours.logits(x[0]), ours.gradient(x[0], y[0])
    for name in names:
        theirs = filled(name, config, params)
        np.testing.assert_allclose(
            theirs.logits(x[0]), logits, rtol=0, atol=1e-5 * np.abs(logits).max(), err_msg=name
        )
        design = CONTESTANTS[name].design
        tree = weights.from_native(design, config.model, theirs.gradient(x[0], y[0]))
        assert equality.gradient_difference(gradient, flatten(tree)) <= 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize(("decay", "schedule"), [("matrices", "cosine"), ("all", "linear")])
def test_all_take_the_same_updates(decay, schedule):
    """These six updates include warm-up, learning rate decay, clipping and weight decay."""
    config, params, x, y = problem(
        decay=decay,
        schedule=schedule,
        max_iters=20,
        warmup_iters=2,
        grad_clip=0.5,
        weight_decay=0.5,
    )
    after = {}
    for name in ["linen", *OTHERS, *TUNED]:
        contestant = filled(name, config, params)
        for i in range(4):
            contestant.step(contestant.put(x[i % 2], y[i % 2]))
        contestant.steps(contestant.put(x, y))  # two more, in one dispatch if possible
        design = CONTESTANTS[name].design
        after[name] = flatten(weights.from_native(design, config.model, contestant.weights()))
    for name in [*OTHERS, *TUNED]:
        for path, ours in after["linen"].items():
            np.testing.assert_allclose(after[name][path], ours, atol=3e-4, err_msg=f"{name} {path}")


@pytest.mark.slow
def test_all_generate_the_same_tokens_past_the_context():
    config, params, x, _ = problem()
    linen = filled("linen", config, params)
    ours = linen.generate(x[0, :2, :3], 10, SERVED)  # gptjax.generate, which has its own tests
    assert ours.shape == (2, 13)
    for name in ["linen", *OTHERS]:
        contestant = filled(name, config, params)
        for way in ways_to_sample(name):
            tokens = contestant.generate(x[0, :2, :3], 10, way)
            np.testing.assert_array_equal(tokens, ours, err_msg=f"{name}, {way}")


@pytest.mark.slow
def test_all_on_jax_draw_from_the_same_distribution_with_a_temperature():
    """The same keys, so the same tokens, with a cache and without."""
    config, params, x, _ = problem()
    key, prompt = jax.random.key(0), jax.numpy.asarray(x[0, :2, :3])
    drawn = []
    for cached in (True, False):
        settings = Settings(5, 0.8, cached)
        drawn.append(linen_gpt.generate(config, params, prompt, key, settings))
        drawn.append(plain_gpt.generate(config, params, prompt, key, settings))
        drawn.append(nnx_gpt.generate(filled("nnx", config, params).model, prompt, key, settings))
    for tokens in drawn:
        np.testing.assert_array_equal(tokens, drawn[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen", *OTHERS])
def test_a_loaded_state_goes_on_as_the_saved_one(name, tmp_path):
    config, params, x, y = problem(dropout=0.2)
    contestant = filled(name, config, params)
    batch = contestant.put(x[0], y[0])
    contestant.step(batch)
    contestant.save(tmp_path / "state")
    went_on = float(contestant.step(batch))
    other = contestants.build(name, config)
    other.load(tmp_path / "state")
    assert float(other.step(batch)) == went_on


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen", *OTHERS])
def test_dropout_is_on_in_training_and_off_in_logits(name):
    config, params, x, y = problem(dropout=0.5)
    contestant = filled(name, config, params)
    logits = contestant.logits(x[0])
    np.testing.assert_array_equal(logits, contestant.logits(x[0]))
    without = filled(name, config.replace(dropout=0.0), params)
    dropped = float(contestant.step(contestant.put(x[0], y[0])))
    # Initial weights hardly use their inputs, so dropout may matter little; rounding is 1e-6.
    assert abs(dropped - float(without.step(without.put(x[0], y[0])))) > 2e-5


@pytest.mark.parametrize("what", ["logits", "gradient", "losses", "same_tokens"])
def test_they_agree_only_within_every_tolerance(what):
    proof = {**equality.TOLERANCES, "tokens": 8, "same_tokens": 8}
    assert equality.agrees(proof)
    worse = 7 if what == "same_tokens" else 1.01 * proof[what]
    assert not equality.agrees(proof | {what: worse})
    assert equality.TOLERANCES == {"logits": 1e-5, "gradient": 1e-4, "losses": 1e-3}


def test_what_is_injected_is_what_the_scripts_train_with():
    config = tiny_config()
    model = execution.suited(linen_gpt.gptjax.GPT(config.model), config, "cpu")
    assert model.execution == tuned.linen()  # type: ignore[attr-defined]


def test_all_have_the_same_functions():
    names = {"make", "forward", "loss", "train_step", "generate", "save", "load"}
    for module in (linen_gpt, nnx_gpt, plain_gpt):
        on_jax = names | {"train_steps"}
        assert all(callable(getattr(module, name)) for name in on_jax), module.__name__
    if TORCH:
        from compare import torch_gpt

        assert all(inspect.isfunction(getattr(torch_gpt, name)) for name in names)


def test_weights_go_to_every_contestant_and_back():
    for fields in ({}, LEFT, RIGHT):
        config, params, _, _ = problem(**fields)
        for name in ("nnx", "plain", "torch"):
            native = weights.to_native(name, config.model, params)
            back = weights.from_native(name, config.model, native)
            jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.skipif(not TORCH, reason="needs the extra `compare`")
def test_a_contestants_process_does_not_pay_for_the_others():
    program = (
        "import sys, compare.measuring.worker, compare.drive.torch; print('jax' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "False"


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    ("field", "value", "only"),
    [
        ("gradient_accumulation_steps", 2, 1),
        ("optimizer", "muon", "adamw"),
    ],
)
def test_what_only_this_project_has_is_refused(name, field, value, only):
    config = tiny_config(**{field: value})
    with pytest.raises(ConfigError, match=f"{field} .*must be {only}: {name} has no other"):
        contestants.build(name, config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.*:DeprecationWarning")  # torch.compile's own
def test_the_whole_command_trains_every_contestant(tmp_path, monkeypatch, capsys):
    """The full form, with README's command, until every contestant has trained once."""
    text = Text("".join(path.read_text() for path in sorted(ROOT.glob("compare/*.py"))), "us", "")
    losses = {}

    class TrainOnce(measurement.Measurement):
        def run(self):
            with np.load(self._folder / "batches.npz") as batches:
                batch = batches["x"][0], batches["y"][0]
            for name in self._names:
                contestant = contestants.build(name, self._run_config)
                with np.load(self._folder / f"{CONTESTANTS[name].design}.npz") as arrays:
                    contestant.set_weights(dict(arrays))
                losses[name] = float(contestant.step(contestant.put(*batch)))

    monkeypatch.setattr(experiment, "load_text", lambda *_, **__: text)
    monkeypatch.setattr(equality, "prove", lambda *_, **__: {})
    monkeypatch.setattr(measurement, "Measurement", TrainOnce)
    monkeypatch.setattr(ease, "TOPICS", ())
    monkeypatch.setattr(command, "write", lambda out, results: None)
    monkeypatch.chdir(tmp_path)
    assert command.main([]) == 0, capsys.readouterr()
    assert set(losses) == {n for n in CONTESTANTS if TORCH or "torch" not in n}
    np.testing.assert_allclose(list(losses.values()), losses["linen"], rtol=1e-4)
