"""Puts the same weights into our GPT and PyTorch's, and defines how close results must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gptjax import interop
from gptjax.data import Batch
from gptjax.loss import cross_entropy
from gptjax.model import GPT, forward
from gptjax.training import init_params

torch = pytest.importorskip("torch", reason="parity needs the extra `compare`")

from twins import LectureGPT  # noqa: E402

from compare import torch_gpt  # noqa: E402

LOGITS, GRADIENTS, TRAINING = 1e-5, 1e-4, 1e-3
NANOGPT = {
    "activation": "gelu",
    "tie_embeddings": True,
    "head_bias": False,
    "scaled_residual_init": True,
    "embd_dropout": True,
}
FEW = settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def assert_close(a, b, relative, floor=0.0):
    """Checks differences relative to the largest entry: float32's sums limit accuracy near zero."""
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
        # LayerNorm of fewer than four numbers amplifies rounding too much to compare.
        "n_embd": n_head * draw(st.integers(4, 12)),
        "dropout": 0.0,
    }


def fresh_params(model_config, seed=0):
    """Parameters larger than at initialisation, biases too, so that no error hides near zero."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: init_params(GPT(model_config), key), jax.random.key(0))

    def draw(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(rng.normal(mean, 0.2, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_batch(model_config, seed=0, rows=4):
    ids = np.random.default_rng(seed).integers(
        0, model_config.vocab_size, (rows, model_config.block_size + 1), dtype=np.int32
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


def lecture_twin(model_config, params):
    model = LectureGPT(model_config)
    model.load_state_dict(tensors(interop.to_lecture(model_config, params)))
    return model.eval()


def nanogpt_twin(model_config, params):
    model = torch_gpt.TorchGPT(model_config)
    entries = interop.to_torch(model_config, params)
    model.load_state_dict(tensors({n.removeprefix("transformer."): a for n, a in entries.items()}))
    return model.eval()


def huggingface_model(model_config, seed=0):
    transformers = pytest.importorskip("transformers", reason="needs the extra `compare`")
    torch.manual_seed(seed)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=model_config.vocab_size,
            n_positions=model_config.block_size,
            n_layer=model_config.n_layer,
            n_head=model_config.n_head,
            n_embd=model_config.n_embd,
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


def check_both_ways(model_config, params, model, from_theirs, to_theirs):
    """Compares logits, then gradients by their names."""
    batch = random_batch(model_config)

    @jax.jit
    def logits_and_gradient(params):
        def loss(params):
            logits_BTV = forward(GPT(model_config), params, batch.x_BT)
            return cross_entropy(logits_BTV, batch.y_BT), logits_BTV

        return jax.grad(loss, has_aux=True)(params)

    ours, logits_BTV = logits_and_gradient(params)
    assert_close(logits_BTV, torch_logits(model, batch.x_BT), LOGITS)
    torch_loss(model, batch).backward()
    _, theirs = from_theirs({name: p.grad for name, p in model.named_parameters()})
    # A gradient that is zero in theory (a key's bias, because of softmax) is only rounding on both
    # sides, so differences below the rounding of the largest gradient are allowed.
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(ours))
    jax.tree.map(lambda a, b: assert_close(a, b, GRADIENTS, floor=1e-6 * largest), ours, theirs)
    back = to_theirs(model_config, params)
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(back[name], parameter.detach().numpy())
