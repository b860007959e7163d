"""Our GPT and PyTorch's have the same logits, gradients, training and text from equal weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gptjax
from gptjax import interop
from gptjax.config import GPTConfig, RunConfig
from gptjax.data import sample_batch
from gptjax.inference.generation import generate
from gptjax.model import GPT, forward
from gptjax.presets import PRESETS
from gptjax.tokenizer import CharTokenizer
from gptjax.training import init_params, init_state, make_train_step

torch = pytest.importorskip("torch", reason="parity needs the extra `compare`")

from parity import (  # noqa: E402
    FEW,
    LOGITS,
    NANOGPT,
    TRAINING,
    assert_close,
    check_both_ways,
    fresh_params,
    huggingface_model,
    lecture_twin,
    nanogpt_twin,
    random_batch,
    sizes,
    torch_logits,
    torch_loss,
)

# Two threads that wait for each other on a busy machine made these tests ten times slower.
torch.set_num_threads(1)


@FEW
@given(sizes(), st.integers(0, 2**31))
def test_the_lectures_model_has_our_logits_and_gradients(size, seed):
    model_config = GPTConfig(**size)
    params = fresh_params(model_config, seed)
    model = lecture_twin(model_config, params)
    check_both_ways(model_config, params, model, interop.from_lecture, interop.to_lecture)


@FEW
@given(sizes(), st.booleans(), st.integers(0, 2**31))
def test_nanogpts_model_has_our_logits_and_gradients(size, bias, seed):
    model_config = GPTConfig(**size, **NANOGPT, qkv_bias=bias, bias=bias, ln_bias=bias)
    params = fresh_params(model_config, seed)
    model = nanogpt_twin(model_config, params)
    check_both_ways(
        model_config,
        params,
        model,
        lambda entries: interop.from_nanogpt(entries, n_head=model_config.n_head),
        lambda model_config, params: {
            name.removeprefix("transformer."): array
            for name, array in interop.to_nanogpt(model_config, params).items()
        },
    )


@FEW
@given(sizes(), st.integers(0, 2**31))
def test_transformers_gpt2_has_our_logits_and_gradients(size, seed):
    model = huggingface_model(GPTConfig(**size), seed)
    model_config, params = interop.from_huggingface(model.state_dict(), n_head=size["n_head"])
    assert (model_config.vocab_size, model_config.block_size) == (
        size["vocab_size"],
        size["block_size"],
    )
    assert model_config.tie_embeddings
    check_both_ways(
        model_config,
        params,
        model,
        lambda entries: interop.from_huggingface(entries, n_head=model_config.n_head),
        interop.to_huggingface,
    )


@pytest.mark.parametrize(
    ("n_layer", "n_head", "n_embd"), [(1, 1, 8), (2, 4, 32), (3, 2, 64)], ids=str
)
def test_transformers_gpt2_generates_the_same_tokens(n_layer, n_head, n_embd):
    size = GPTConfig(vocab_size=97, block_size=48, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    model = huggingface_model(size)
    model.generation_config.eos_token_id = None  # a random model may well generate it
    model.generation_config.pad_token_id = 0
    model_config, params = interop.from_huggingface(model.state_dict(), n_head=n_head)
    prompt = np.random.default_rng(1).integers(1, 97, (3, 7), dtype=np.int32)
    given_ids = torch.from_numpy(prompt).long()
    theirs = model.generate(
        given_ids,
        attention_mask=torch.ones_like(given_ids),
        max_new_tokens=40,
        do_sample=False,
    )
    ours = generate(
        GPT(model_config), params, prompt, jax.random.key(0), max_new_tokens=40, temperature=0.0
    )
    np.testing.assert_array_equal(np.asarray(ours), theirs.numpy())


def training_curves(model_config, params, model, steps=200):
    """Losses of both sides over the same batches, with the AdamW of the lecture's last model.

    The learning rate is 3e-4. At 1e-3, two runs of the same side whose weights differ by 1e-7
    differ by 0.02 within 200 updates, because ReLU has kinks: no comparison would be possible.
    """
    train = PRESETS["layernorm"].replace(learning_rate=3e-4, min_lr=3e-4).train
    run = RunConfig(model=model_config, train=train)
    step = jax.jit(make_train_step(GPT(model_config), run))
    state = jax.jit(lambda key: init_state(GPT(model_config), run, key))(jax.random.key(0))
    state = state.replace(params=params)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.train.learning_rate)
    model.train()
    ours, theirs = [], []
    for i in range(steps):
        batch = sample_batch(TOKENS, jax.random.key(1), i, 32, model_config.block_size)
        state, metrics = step(state, batch, jax.random.key(0))
        ours.append(float(metrics.loss))
        loss = torch_loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
    return np.array(ours), np.array(theirs)


# A text to learn from that always exists: the package's own English and Python.
TEXT = "".join(path.read_text() for path in sorted(Path(gptjax.__file__).parent.rglob("*.py")))
TOKENS = jnp.asarray(CharTokenizer.from_text(TEXT).encode(TEXT))


SMALL = {"vocab_size": len(set(TEXT)), "block_size": 16, "n_layer": 2, "n_head": 4, "n_embd": 32}


def start_of_training(model_config):
    """Kernels and tables from N(0, 0.08).

    At 0.02, the first gradients of queries and keys are near Adam's epsilon, where rounding alone
    decides the direction of an update.
    """
    params = jax.jit(lambda key: init_params(GPT(model_config), key))(jax.random.key(0))
    return jax.tree.map(lambda a: 4 * a if a.ndim > 1 else a, params)


def check_training(model_config, params, model):
    ours, theirs = training_curves(model_config, params, model)
    assert ours[-1] < ours[0] - 1, "nothing was learned, so nothing was compared"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TRAINING)


@pytest.mark.slow
def test_the_lectures_training_is_ours_step_by_step():
    model_config = GPTConfig(**SMALL, dropout=0.0)
    params = start_of_training(model_config)
    check_training(model_config, params, lecture_twin(model_config, params))


@pytest.mark.slow
def test_nanogpts_training_is_ours_step_by_step():
    model_config = GPTConfig(**SMALL, **NANOGPT, dropout=0.0, bias=False, ln_bias=False)
    params = start_of_training(model_config)
    check_training(model_config, params, nanogpt_twin(model_config, params))


@pytest.mark.slow
def test_transformers_training_is_ours_step_by_step():
    theirs = GPTConfig(**SMALL, dropout=0.0)
    model_config, params = interop.from_huggingface(
        (start := huggingface_start(theirs)).state_dict(), n_head=theirs.n_head
    )
    check_training(model_config, params, start)


def huggingface_start(model_config):
    """Like `start_of_training`, but with PyTorch's random numbers."""
    model = huggingface_model(model_config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.08)
    return model


def test_any_configuration_reaches_the_torch_classes():
    """compare/ also trains configurations that are neither the lecture's nor nanoGPT's."""
    for changes in (
        {"qkv_bias": True, "bias": False},
        {"tie_embeddings": True},
        {"activation": "gelu_tanh", "ln_bias": False, "head_bias": False},
    ):
        model_config = GPTConfig(**SMALL, dropout=0.0, **changes)
        params = fresh_params(model_config)
        x_BT = random_batch(model_config).x_BT
        logits = torch_logits(nanogpt_twin(model_config, params), x_BT)
        assert_close(forward(GPT(model_config), params, x_BT), logits, LOGITS)
