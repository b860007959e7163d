import dataclasses
import json

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptjax.config import GPTConfig, RunConfig, TrainConfig
from gptjax.errors import ConfigError, InputError
from gptjax.inference.sampling import Sampling
from gptjax.model import num_params
from gptjax.presets import PRESETS, preset_for
from gptjax.store.runs import abstract_params, make_model


def test_round_trip_through_json():
    for preset in PRESETS.values():
        stored = json.loads(json.dumps(preset.to_dict()))
        assert RunConfig.from_dict(stored) == preset


@given(st.integers(1, 300), st.integers(1, 8), st.floats(0, 0.99), st.booleans(), st.floats(0, 1))
def test_round_trip_of_any_values(block_size, n_head, dropout, bias, weight_decay):
    run_config = RunConfig(
        model=GPTConfig(
            block_size=block_size, n_head=n_head, n_embd=4 * n_head, dropout=dropout, bias=bias
        ),
        train=TrainConfig(weight_decay=weight_decay),
    )
    assert RunConfig.from_dict(json.loads(json.dumps(run_config.to_dict()))) == run_config


def test_config_is_frozen_and_hashable():
    model_config = GPTConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        model_config.n_layer = 3  # type: ignore[misc]
    assert hash(model_config) == hash(GPTConfig())


def test_an_int_for_a_float_makes_the_same_config():
    assert json.dumps(TrainConfig(grad_clip=1).grad_clip) == "1.0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 0}, "n_layer (0) must be at least 1"),
        ({"block_size": -1}, "block_size (-1) must be at least 1"),
        ({"n_embd": 100, "n_head": 6}, "n_embd (100) must be divisible by n_head (6)"),
        ({"dropout": 1.0}, "dropout (1.0) must be at least 0 and less than 1"),
        ({"dropout": float("nan")}, "dropout (nan) must be a finite float32 number"),
        ({"init_std": 0.0}, "init_std (0.0) must be above 0"),
        ({"activation": "tanh"}, "activation ('tanh') must be one of relu, gelu, gelu_tanh"),
        ({"dtype": "float16"}, "dtype ('float16') must be one of float32, bfloat16"),
        ({"bias": 1}, "bias (1) must be a bool"),
        ({"n_layer": 2.0}, "n_layer (2.0) must be a whole number"),
        ({"n_layer": True}, "n_layer (True) must be a whole number"),
        ({"learning_rate": -1e-3}, "learning_rate (-0.001) must be at least 0"),
        ({"learning_rate": float("inf")}, "learning_rate (inf) must be a finite float32 number"),
        ({"learning_rate": "1"}, "learning_rate (1) must be a finite float32 number"),
        ({"weight_decay": 3.4028236e38}, "weight_decay (3.4028236e+38) must be a finite float32"),
        ({"weight_decay": 10**400}, "must be a finite float32 number"),
        ({"min_lr": 1.0}, "min_lr (1.0) must be at most learning_rate"),
        ({"beta2": 1.0}, "beta2 (1.0) must be at least 0 and less than 1"),
        ({"batch_size": 0}, "batch_size (0) must be at least 1"),
        ({"keep": 0}, "keep (0) must be at least 1"),
        ({"seed": -1}, "seed (-1) must be at least 0"),
        ({"seed": 2**32}, "seed (4294967296)"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ConfigError) as caught:
        RunConfig().replace(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("largest", [np.finfo(np.float32).max, "3.4028235e+38"])
def test_the_largest_float32_is_a_finite_number(largest):
    """As NumPy holds it, and as NumPy prints it."""
    assert TrainConfig(weight_decay=float(largest)).weight_decay == float(largest)
    assert Sampling(repetition_penalty=float(largest)).traced()["repetition_penalty"] < np.inf


def test_unknown_fields_are_named():
    with pytest.raises(InputError, match="n_layers"):
        RunConfig().replace(n_layers=3)
    with pytest.raises(InputError, match="GPTConfig has no field 'n_layers'"):
        RunConfig.from_dict({"model": {"n_layers": 3}})
    with pytest.raises(InputError, match="expected an object"):
        RunConfig.from_dict({"model": [1]})


@pytest.mark.parametrize(("name", "limit"), [("shakespeare-cpu", 1.2e6), ("shakespeare", 10.8e6)])
def test_presets_keep_their_size(name, limit):
    assert num_params(abstract_params(make_model(PRESETS[name]))) <= limit


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("gpt2-finetune", 124_439_808),
    ],
)
def test_gpt2s_presets_have_the_published_weights_number_of_parameters(name, count):
    """The sizes of openai-community's model.safetensors, without the causal masks in them."""
    assert num_params(abstract_params(make_model(PRESETS[name]))) == count


def test_preset_suits_the_platform():
    assert preset_for("cpu").preset == "shakespeare-cpu"
    assert preset_for("gpu").preset == preset_for("tpu").preset == "shakespeare"
    assert preset_for("cpu", "shakespeare").model.dtype == "float32"
    with pytest.raises(InputError, match="'nope' must be one of"):
        preset_for("cpu", "nope")
    assert preset_for(jax.default_backend()).preset in PRESETS
