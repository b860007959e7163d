"""Weights from and to other implementations: round trips, and errors."""

import re

import jax
import numpy as np
import pytest

from gptjax import interop
from gptjax.config import GPTConfig
from gptjax.errors import InputError
from gptjax.model import GPT
from gptjax.training import init_params

SIZE = {"vocab_size": 11, "block_size": 6, "n_layer": 2, "n_head": 2, "n_embd": 8, "dropout": 0.0}
LECTURE = GPTConfig(**SIZE)
GPT2_LIKE = {
    "tie_embeddings": True,
    "head_bias": False,
    "scaled_residual_init": True,
    "embd_dropout": True,
}
NANOGPT = GPTConfig(**SIZE, **GPT2_LIKE, activation="gelu", bias=False, ln_bias=False)
HUGGINGFACE = GPTConfig(**SIZE, **GPT2_LIKE, activation="gelu_tanh", qkv_bias=True)
ALL = {
    "lecture": (LECTURE, interop.to_lecture, interop.from_lecture),
    "nanogpt": (NANOGPT, interop.to_nanogpt, lambda d: interop.from_nanogpt(d, n_head=2)),
    "huggingface": (
        HUGGINGFACE,
        interop.to_huggingface,
        lambda d: interop.from_huggingface(d, n_head=2),
    ),
}
# An entry of each, by which the tests below damage a state dict.
ENTRY = {
    "lecture": "blocks.1.sa.heads.1.key.weight",
    "nanogpt": "transformer.h.1.attn.c_attn.weight",
    "huggingface": "transformer.h.1.attn.c_attn.weight",
}


def params_of(model_config):
    """All numbers differ, so that a wrong transposition or order cannot hide."""
    shapes = jax.eval_shape(lambda key: init_params(GPT(model_config), key), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(params=list(ALL))
def kind(request):
    return request.param


@pytest.fixture
def state_dict(kind):
    model_config, to, _ = ALL[kind]
    return to(model_config, params_of(model_config))


def test_there_and_back_nothing_changes(kind, state_dict):
    model_config, _, back = ALL[kind]
    found, params = back(state_dict)
    assert found == model_config
    jax.tree.map(np.testing.assert_array_equal, params, params_of(model_config))


def test_names_are_the_originals():
    names = interop.to_lecture(LECTURE, params_of(LECTURE))
    for name in (
        "token_embedding_table.weight position_embedding_table.weight blocks.0.sa.proj.weight "
        "blocks.0.sa.heads.0.key.weight blocks.1.ffwd.net.0.weight blocks.1.ffwd.net.2.bias "
        "blocks.0.ln1.weight ln_f.bias lm_head.bias blocks.0.sa.heads.1.tril"
    ).split():
        assert name in names
    assert names["blocks.0.sa.heads.0.key.weight"].shape == (4, 8)
    nano = interop.to_nanogpt(NANOGPT, params_of(NANOGPT))
    assert nano["transformer.h.0.attn.c_attn.weight"].shape == (24, 8)
    hugging = interop.to_huggingface(HUGGINGFACE, params_of(HUGGINGFACE))
    assert hugging["transformer.h.0.attn.c_attn.weight"].shape == (8, 24)
    assert hugging["transformer.h.0.mlp.c_fc.weight"].shape == (8, 32)
    assert hugging["transformer.h.0.attn.c_attn.bias"].shape == (24,)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.removeprefix("transformer."),
        lambda name: f"_orig_mod.{name}",
        lambda name: f"_orig_mod.{name.removeprefix('transformer.')}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"model._orig_mod.{name}",
        lambda name: f"_fsdp_wrapped_module.{name}",
        # One block at a time, compiled, sharded or checkpointed.
        lambda name: re.sub(r"\b((?:h|blocks)\.\d+)\.", r"\1._orig_mod.", name),
        lambda name: re.sub(r"\b((?:h|blocks)\.\d+)\.", r"\1._fsdp_wrapped_module.", name),
        lambda name: re.sub(r"\b((?:h|blocks)\.\d+)\.", r"\1._checkpoint_wrapped_module.", name),
    ],
    ids=[
        *["bare", "compiled", "compiled and bare", "DDP", "compiled, then DDP", "DDP, compiled"],
        *["Lightning", "FSDP", "compiled blocks", "FSDP's blocks", "checkpointed blocks"],
    ],
)
def test_names_load_with_and_without_prefixes(rename, kind, state_dict):
    model_config, _, back = ALL[kind]
    assert back({rename(name): a for name, a in state_dict.items()})[0] == model_config


@pytest.mark.parametrize("kind", ["nanogpt", "huggingface"])
def test_a_tied_output_layer_may_be_absent(kind, state_dict):
    model_config, _, back = ALL[kind]
    del state_dict["lm_head.weight"]
    assert back(state_dict)[0] == model_config


@pytest.mark.parametrize("kind", ["nanogpt", "huggingface"])
def test_an_output_layer_of_its_own_is_kept(kind, state_dict):
    _, _, back = ALL[kind]
    state_dict["lm_head.weight"] = state_dict["lm_head.weight"] + 1
    model_config, params = back(state_dict)
    assert not model_config.tie_embeddings
    np.testing.assert_array_equal(params["lm_head"]["kernel"].T, state_dict["lm_head.weight"])


def test_masks_are_ignored(kind, state_dict):
    model_config, _, back = ALL[kind]
    masks = {
        "transformer.h.0.attn.bias": np.ones((1, 1, 6, 6), bool),
        "transformer.h.0.attn.masked_bias": np.array(-1e4),
        "blocks.0.sa.heads.0.tril": np.ones((6, 6)),
    }
    assert back(state_dict | masks)[0] == model_config


def test_half_precision_weights_become_float32(kind, state_dict):
    _, _, back = ALL[kind]
    for dtype in (np.float16, jax.numpy.bfloat16, np.float64):
        _, params = back({name: a.astype(dtype) for name, a in state_dict.items()})
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


def test_a_missing_entry_is_named(kind, state_dict):
    _, _, back = ALL[kind]
    del state_dict[ENTRY[kind]]
    with pytest.raises(InputError, match=ENTRY[kind].removeprefix("transformer.")):
        back(state_dict)


def test_every_missing_entry_is_noticed(kind, state_dict):
    _, _, back = ALL[kind]
    for name in state_dict:
        if name.endswith(".tril") or name == "lm_head.weight" != kind == "lecture":
            continue
        if name == "lm_head.weight":
            continue  # absent if tied
        with pytest.raises(InputError):
            back({k: v for k, v in state_dict.items() if k != name})


def test_an_unknown_entry_is_named(kind, state_dict):
    _, _, back = ALL[kind]
    state_dict["rotary.freqs"] = np.ones(4, np.float32)
    with pytest.raises(InputError, match=r"unknown entry rotary\.freqs"):
        back(state_dict)


def test_a_misshapen_entry_is_named_with_both_shapes(kind, state_dict):
    _, _, back = ALL[kind]
    found = state_dict[ENTRY[kind]].shape
    state_dict[ENTRY[kind]] = state_dict[ENTRY[kind]].T.copy()
    name = ENTRY[kind].removeprefix("transformer.")
    with pytest.raises(InputError) as error:
        back(state_dict)
    for text in (name, str(found), str(found[::-1])):
        assert text in str(error.value)


def test_blocks_of_mixed_widths_are_refused(kind, state_dict):
    _, to, back = ALL[kind]
    wide = GPTConfig(**{**ALL[kind][0].__dict__, "n_embd": 16})
    other = to(wide, params_of(wide))
    mixed = {n: other[n] if ".1." in n else a for n, a in state_dict.items()}
    with pytest.raises(InputError, match=r"shape .* is expected"):
        back(mixed)


@pytest.mark.parametrize("kind", ["lecture"])
def test_another_architecture_is_refused_by_name(kind, state_dict):
    llama = {"model.embed_tokens.weight": np.ones((4, 4), np.float32)}
    for back in (interop.from_lecture, lambda d: interop.from_nanogpt(d, n_head=2)):
        with pytest.raises(InputError, match=r"begin with: embed_tokens\.weight"):
            back(llama)
    with pytest.raises(InputError, match=r"no entry wte\.weight"):
        interop.from_nanogpt(state_dict, n_head=2)
    with pytest.raises(InputError, match=r"no entry token_embedding_table\.weight"):
        interop.from_lecture(interop.to_nanogpt(NANOGPT, params_of(NANOGPT)))
    with pytest.raises(InputError, match="none"):
        interop.from_lecture({})


def test_transposed_layers_of_the_wrong_kind_are_refused():
    """nanoGPT's weights are Hugging Face's, transposed; most of them are not square."""
    with pytest.raises(InputError, match=r"c_attn\.weight has shape"):
        interop.from_huggingface(interop.to_nanogpt(NANOGPT, params_of(NANOGPT)), n_head=2)


def test_entries_that_are_no_floats_are_refused(kind, state_dict):
    _, _, back = ALL[kind]
    for value in ("text", np.ones((2, 2), np.int8), None):
        with pytest.raises(InputError, match=ENTRY[kind]):
            back(state_dict | {ENTRY[kind]: value})


def test_two_entries_of_one_name_are_refused():
    state_dict = interop.to_nanogpt(NANOGPT, params_of(NANOGPT))
    state_dict["wte.weight"] = state_dict["transformer.wte.weight"]
    with pytest.raises(InputError, match=r"two entries for wte\.weight"):
        interop.from_nanogpt(state_dict, n_head=2)


def test_the_number_of_heads_must_divide_the_width():
    state_dict = interop.to_nanogpt(NANOGPT, params_of(NANOGPT))
    with pytest.raises(InputError, match="n_head"):
        interop.from_nanogpt(state_dict, n_head=3)


def test_nanogpt_weights_of_either_activation():
    """build-nanogpt trains with tanh GELU: with exact GELU, its weights are silently wrong."""
    model_config = GPTConfig(**SIZE, **GPT2_LIKE, activation="gelu_tanh", qkv_bias=True)
    state_dict = interop.to_nanogpt(model_config, params_of(model_config), activation="gelu_tanh")
    assert interop.from_nanogpt(state_dict, n_head=2, activation="gelu_tanh")[0] == model_config
    assert interop.from_nanogpt(state_dict, n_head=2)[0].activation == "gelu"
    for activation in ("relu", "gelu_new"):
        with pytest.raises(InputError, match=f"{activation}.* must be gelu or gelu_tanh"):
            interop.from_nanogpt(state_dict, n_head=2, activation=activation)
        with pytest.raises(InputError, match=f"{activation}.* must be gelu or gelu_tanh"):
            interop.to_nanogpt(model_config, params_of(model_config), activation=activation)


@pytest.mark.parametrize("name", ["model", "state_dict"])
def test_a_whole_checkpoint_in_place_of_its_weights_is_named(name, kind, state_dict):
    """What `torch.load("ckpt.pt")` of nanoGPT returns."""
    _, _, back = ALL[kind]
    checkpoint = {"iter_num": 5, "optimizer": {}, name: state_dict, "best_val_loss": 1.0}
    if name != "model":
        del checkpoint["optimizer"]
    with pytest.raises(InputError, match="pass checkpoint") as caught:
        back(checkpoint)
    [key] = re.findall(r"pass checkpoint\['(.*)'\]", str(caught.value))
    assert key == name
    back(checkpoint[key])


@pytest.mark.parametrize(
    ("to", "model_config", "field"),
    [
        (interop.to_lecture, NANOGPT, "activation"),
        (interop.to_lecture, GPTConfig(**SIZE, tie_embeddings=True), "tie_embeddings"),
        (interop.to_nanogpt, LECTURE, "activation"),
        (interop.to_nanogpt, GPTConfig(**SIZE, activation="gelu"), "qkv_bias"),
        (interop.to_huggingface, NANOGPT, "qkv_bias"),
    ],
)
def test_a_configuration_that_the_original_cannot_have_is_named(to, model_config, field):
    with pytest.raises(InputError, match=f"^{field} "):
        to(model_config, params_of(model_config))


def test_parameters_of_another_configuration_are_refused():
    params = params_of(LECTURE)
    with pytest.raises(InputError, match="block_2"):
        interop.to_lecture(GPTConfig(**{**SIZE, "n_layer": 3}), params)
    del params["ln_f"]["bias"]
    with pytest.raises(InputError, match=r"ln_f/bias is missing"):
        interop.to_lecture(LECTURE, params)
