"""Our GPT and PyTorch's, from the same weights: the same logits, gradients, training and text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptjax import interop
from gptjax.config import PRESETS, GPTConfig, RunConfig
from gptjax.data import Batch
from gptjax.generation import generate
from gptjax.loss import cross_entropy
from gptjax.model import GPT, forward
from gptjax.training import init_params, init_state, make_train_step

torch = pytest.importorskip("torch", reason="parity needs requirements-compare.txt")

from compare import torch_gpt  # noqa: E402
from twins import LectureGPT  # noqa: E402

LOGITS, GRADIENTS, TRAINING = 1e-5, 1e-4, 1e-3
NANOGPT = {
    "activation": "gelu",
    "tie_embeddings": True,
    "head_bias": False,
    "scaled_residual_init": True,
    "embd_dropout": True,
}
FEW = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def assert_close(a, b, relative, floor=0.0):
    """Relative to the largest entry: near zero, float32 cannot do better than the sums it made."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=relative * np.abs(b).max() + floor)


@st.composite
def sizes(draw):
    n_head = draw(st.integers(1, 4))
    return {
        "vocab_size": draw(st.integers(2, 70)),
        "block_size": draw(st.integers(1, 16)),
        "n_layer": draw(st.integers(1, 3)),
        "n_head": n_head,
        # LayerNorm of fewer than four numbers amplifies rounding: the comparison would be of that.
        "n_embd": n_head * draw(st.integers(4, 12)),
        "dropout": 0.0,
    }


def fresh_params(config, seed=0):
    """Larger than at initialisation, biases too, so that nothing is hidden by being near zero."""
    params = init_params(GPT(config), jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def random_batch(config, seed=0, rows=4):
    ids = np.random.default_rng(seed).integers(
        0, config.vocab_size, (rows, config.block_size + 1), dtype=np.int32
    )
    return Batch(jnp.asarray(ids[:, :-1]), jnp.asarray(ids[:, 1:]))


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def torch_loss(model, batch):
    x, y = (torch.from_numpy(np.array(ids)).long() for ids in batch)
    logits = model(x)
    logits = getattr(logits, "logits", logits)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())


def torch_logits(model, x_BT):
    with torch.no_grad():
        out = model(torch.from_numpy(np.array(x_BT)).long())
    return getattr(out, "logits", out).numpy()


def lecture_twin(config, params):
    model = LectureGPT(config)
    model.load_state_dict(tensors(interop.to_lecture(config, params)))
    return model.eval()


def nanogpt_twin(config, params):
    return torch_gpt.load(config, params).eval()


def huggingface_model(config, seed=0):
    transformers = pytest.importorskip("transformers", reason="needs requirements-compare.txt")
    torch.manual_seed(seed)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return theirs.eval()


def check_both_ways(config, params, model, from_theirs, to_theirs):
    """Logits, then gradients, which come back under their names and must be ours."""
    batch = random_batch(config)

    @jax.jit
    def logits_and_gradient(params):
        def loss(params):
            logits_BTV = forward(GPT(config), params, batch.x_BT)
            return cross_entropy(logits_BTV, batch.y_BT), logits_BTV

        return jax.grad(loss, has_aux=True)(params)

    ours, logits_BTV = logits_and_gradient(params)
    assert_close(logits_BTV, torch_logits(model, batch.x_BT), LOGITS)
    torch_loss(model, batch).backward()
    _, theirs = from_theirs({name: p.grad for name, p in model.named_parameters()})
    # A gradient that is zero on paper (a key's bias, by the softmax) is rounding on both sides,
    # so nothing is asked of it below the rounding of the largest.
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(ours))
    jax.tree.map(lambda a, b: assert_close(a, b, GRADIENTS, floor=1e-6 * largest), ours, theirs)
    back = to_theirs(config, params)
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(back[name], parameter.detach().numpy())


@FEW
@given(sizes(), st.integers(0, 2**31))
def test_the_lectures_model_has_our_logits_and_gradients(size, seed):
    config = GPTConfig(**size)
    params = fresh_params(config, seed)
    model = lecture_twin(config, params)
    check_both_ways(config, params, model, interop.from_lecture, interop.to_lecture)


@FEW
@given(sizes(), st.booleans(), st.integers(0, 2**31))
def test_nanogpts_model_has_our_logits_and_gradients(size, bias, seed):
    config = GPTConfig(**size, **NANOGPT, qkv_bias=bias, bias=bias, ln_bias=bias)
    params = fresh_params(config, seed)
    model = nanogpt_twin(config, params)
    check_both_ways(
        config,
        params,
        model,
        lambda entries: interop.from_nanogpt(entries, n_head=config.n_head),
        lambda config, params: {
            name.removeprefix("transformer."): array
            for name, array in interop.to_nanogpt(config, params).items()
        },
    )


@FEW
@given(sizes(), st.integers(0, 2**31))
def test_transformers_gpt2_has_our_logits_and_gradients(size, seed):
    model = huggingface_model(GPTConfig(**size), seed)
    config, params = interop.from_huggingface(model.state_dict(), n_head=size["n_head"])
    assert (config.vocab_size, config.block_size) == (size["vocab_size"], size["block_size"])
    assert config.tie_embeddings
    check_both_ways(
        config,
        params,
        model,
        lambda entries: interop.from_huggingface(entries, n_head=config.n_head),
        interop.to_huggingface,
    )


@pytest.mark.parametrize(
    ("n_layer", "n_head", "n_embd"), [(1, 1, 8), (2, 4, 32), (3, 2, 64)], ids=str
)
def test_transformers_gpt2_generates_the_same_tokens(n_layer, n_head, n_embd):
    size = GPTConfig(vocab_size=97, block_size=48, n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    model = huggingface_model(size)
    model.generation_config.eos_token_id = None  # a random model may well say it
    model.generation_config.pad_token_id = 0
    config, params = interop.from_huggingface(model.state_dict(), n_head=n_head)
    prompt = np.random.default_rng(1).integers(1, 97, (3, 7), dtype=np.int32)
    given_ids = torch.from_numpy(prompt).long()
    theirs = model.generate(
        given_ids,
        attention_mask=torch.ones_like(given_ids),
        max_new_tokens=40,
        do_sample=False,
    )
    ours = generate(
        GPT(config), params, prompt, jax.random.key(0), max_new_tokens=40, temperature=0.0
    )
    np.testing.assert_array_equal(np.asarray(ours), theirs.numpy())


def training_curves(config, params, model, steps=200):
    """Losses of both sides over the same batches, with the lecture's AdamW."""
    run = PRESETS["layernorm"]
    run = RunConfig(model=config, train=run.train)
    step = jax.jit(make_train_step(GPT(config), run))
    state = init_state(GPT(config), run, jax.random.key(0)).replace(params=params)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.train.learning_rate)
    model.train()
    ours, theirs = [], []
    for i in range(steps):
        batch = pattern_batch(config, i)
        state, metrics = step(state, batch, jax.random.key(0))
        ours.append(float(metrics.loss))
        loss = torch_loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
    return np.array(ours), np.array(theirs)


def pattern_batch(config, i, rows=8):
    """Something to learn: each id follows from the one before, with a little noise."""
    rng = np.random.default_rng(i)
    ids = [rng.integers(0, config.vocab_size, rows)]
    for _ in range(config.block_size):
        noise = rng.integers(0, config.vocab_size, rows)
        ids.append(np.where(rng.random(rows) < 0.1, noise, (3 * ids[-1] + 1) % config.vocab_size))
    ids = jnp.asarray(np.stack(ids, axis=1), jnp.int32)
    return Batch(ids[:, :-1], ids[:, 1:])


SMALL = {"vocab_size": 65, "block_size": 16, "n_layer": 3, "n_head": 4, "n_embd": 32}


def check_training(config, params, model):
    ours, theirs = training_curves(config, params, model)
    assert ours[-1] < ours[0] - 1, "nothing was learned, so nothing was compared"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TRAINING)


def test_the_lectures_training_is_ours_step_by_step():
    config = GPTConfig(**SMALL, dropout=0.0)
    params = init_params(GPT(config), jax.random.key(0))
    check_training(config, params, lecture_twin(config, params))


def test_nanogpts_training_is_ours_step_by_step():
    config = GPTConfig(**SMALL, **NANOGPT, dropout=0.0, bias=False, ln_bias=False)
    params = init_params(GPT(config), jax.random.key(0))
    check_training(config, params, nanogpt_twin(config, params))


def test_transformers_training_is_ours_step_by_step():
    theirs = GPTConfig(**SMALL, dropout=0.0)
    config, params = interop.from_huggingface(
        (start := huggingface_start(theirs)).state_dict(), n_head=theirs.n_head
    )
    check_training(config, params, start)


def huggingface_start(config):
    """As transformers initialises it: 0.2 of noise would start far from where training starts."""
    model = huggingface_model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.02)
    return model


def test_any_configuration_reaches_the_torch_classes():
    """compare/ trains configurations that are neither the lecture's nor nanoGPT's."""
    for changes in (
        {"qkv_bias": True, "bias": False},
        {"tie_embeddings": True},
        {"activation": "gelu_tanh", "ln_bias": False, "head_bias": False},
    ):
        config = GPTConfig(**SMALL, dropout=0.0, **changes)
        params = fresh_params(config)
        x_BT = random_batch(config).x_BT
        logits = torch_logits(torch_gpt.load(config, params).eval(), x_BT)
        assert_close(forward(GPT(config), params, x_BT), logits, LOGITS)
