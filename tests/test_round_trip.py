"""Round trips: weights from PyTorch, trained here, exported, and loaded in PyTorch again.

The other implementation trains from the same weights on the same batches, for comparison.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

import train
from gptjax import generate, load_run
from gptjax.app import export
from gptjax.data import sample_batch
from gptjax.model import forward
from gptjax.store import runs
from gptjax.training import make_keys

from conftest import TEXT, tiny
from outcomes import metrics

torch = pytest.importorskip("torch", reason="needs the extra `compare`")
transformers = pytest.importorskip("transformers", reason="needs the extra `compare`")

from parity import assert_close, torch_logits  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from twins import LectureGPT  # noqa: E402

from compare.torch_gpt import TorchGPT  # noqa: E402

pytestmark = pytest.mark.slow

LOGITS, LOSSES = 1e-5, 1e-4
UPDATES = 20
RATE, DECAY = 1e-3, 1.0  # so much weight decay that its effect on each parameter is visible
FLAGS = [
    *("--max-iters", UPDATES, "--eval-interval", UPDATES, "--log-interval", 1),
    *("--batch-size", 4, "--gradient-accumulation-steps", 2),
    *("--learning-rate", RATE, "--weight-decay", DECAY),
]


class Trained(NamedTuple):
    """Our run from `--init-from`, and the module that started from the same weights."""

    folder: Path
    run: runs.Run
    theirs: torch.nn.Module


def call(main, *argv):
    assert main([str(x) for x in argv]) == 0


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "my.txt"
    path.write_text(TEXT)
    return path


def fine_tuned(source: Path, text: Path) -> Path:
    """Trains a run that starts from `source`, in a folder beside it."""
    out = source.parent / "fine"
    call(train.main, "--init-from", source, "--data", text, "--out-dir", out, *FLAGS)
    return out


def gpt2_folder(folder: Path, n_layer, n_head, n_embd, block_size, activation):
    """Makes transformers' GPT-2 and a vocabulary in a folder; returns the module."""
    import tokenizers

    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator([TEXT], vocab_size=280, special_tokens=["<|endoftext|>"])
    folder.mkdir()
    bpe.save_model(str(folder))
    torch.manual_seed(n_layer)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=bpe.get_vocab_size(),
            n_positions=block_size,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            activation_function=activation,
            initializer_range=0.1,
            resid_pdrop=0.0,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    with torch.no_grad():  # with zeros, a bias's decay would not show
        for weight in model.parameters():
            if weight.ndim == 1:
                weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return model


@pytest.fixture(
    scope="module",
    params=[
        (1, 1, 16, 16, "gelu_new"),
        (2, 2, 32, 24, "gelu_new"),
        (3, 4, 32, 16, "relu"),
        (2, 3, 48, 32, "gelu"),
    ],
    ids=lambda shape: "x".join(map(str, shape)),
)
def from_gpt2(request, text, tmp_path_factory) -> Trained:
    """20 updates from transformers' random GPT-2; the module still has the initial weights."""
    folder = tmp_path_factory.mktemp("trip")
    theirs = gpt2_folder(folder / "gpt2", *request.param)
    fine = fine_tuned(folder / "gpt2", text)
    return Trained(fine, load_run(fine, "latest"), theirs)


def ids_of(run: runs.Run) -> np.ndarray:
    """The beginning of the text, (1, block_size)."""
    return run.tokenizer.encode(TEXT)[None, : run.config.model.block_size]


def train_theirs(trained: Trained) -> list[float]:
    """Applies the run's updates to the module in PyTorch; returns the loss before each update."""
    config, theirs = trained.run.config, trained.theirs
    cfg, every = config.train, list(theirs.parameters())
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(cfg.beta1, cfg.beta2), eps=1e-8)
    tokens = jax.numpy.asarray(trained.run.tokenizer.encode(TEXT[: int(0.9 * len(TEXT))]))
    key, rows = make_keys(config.seed).data, cfg.sequences_per_update
    theirs.train()
    losses = []
    for step in range(UPDATES):
        batch = sample_batch(tokens, key, step, rows, config.model.block_size)
        x_BT, y_BT = (torch.from_numpy(np.array(ids)).long() for ids in batch)
        logits = theirs(x_BT)
        logits = getattr(logits, "logits", logits)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(every, cfg.grad_clip)
        optimizer.step()
        losses.append(loss.item())
    theirs.eval()
    return losses


def assert_trained_alike(trained: Trained) -> None:
    """The losses of all updates are equal, and the trained models compute the same."""
    ours = [x["train_loss"] for x in metrics(trained.folder) if "train_loss" in x]
    theirs = train_theirs(trained)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=LOSSES)
    assert theirs[-1] < theirs[0], "it learns"
    run = trained.run
    after = np.asarray(forward(run.model, run.params, ids_of(run)))
    # Adam divides each gradient by its size, so rounding errors grow where gradients are small.
    assert_close(after, torch_logits(trained.theirs, ids_of(run)), 1e-3)


def test_fine_tuning_gpt2_gives_the_losses_of_transformers_and_adamw(from_gpt2):
    assert_trained_alike(from_gpt2)


def test_transformers_computes_the_same_after_the_round_trip(from_gpt2, tmp_path):
    out = tmp_path / "out"
    call(export.main, from_gpt2.folder, "--to", "huggingface", "--step", "latest", "--out", out)
    run = from_gpt2.run
    ids = ids_of(run)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(out).eval()
    assert_close(torch_logits(theirs, ids), np.asarray(forward(run.model, run.params, ids)), LOGITS)

    prompt, new = ids[:, : ids.shape[1] // 2], ids.shape[1] // 2
    greedy = generate(
        run.model, run.params, prompt, jax.random.key(0), max_new_tokens=new, temperature=0.0
    )
    again = theirs.generate(
        torch.from_numpy(prompt).long(),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert np.array_equal(greedy, again.numpy())

    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.encode(TEXT) == run.tokenizer.encode(TEXT).tolist()


def nanogpt(model_config, entries):
    """nanoGPT's model, whose names have a prefix that the twin's names lack."""
    model = TorchGPT(model_config)
    model.load_state_dict({k.removeprefix("transformer."): v for k, v in entries.items()})
    return model


def lecture(model_config, entries):
    model = LectureGPT(model_config)
    model.load_state_dict(entries)
    return model


NANOGPT = "--activation gelu --qkv-bias true --tie-embeddings true --head-bias false".split()
LECTURE = "--activation relu --qkv-bias false".split()


@pytest.mark.parametrize(
    ("to", "flags", "twin"), [("nanogpt", NANOGPT, nanogpt), ("lecture", LECTURE, lecture)]
)
def test_a_twin_loads_an_export_trains_on_alike_and_loads_the_next(to, flags, twin, text, tmp_path):
    """Exports a run; the twin and a second run continue from there; exports the second run."""
    source = tmp_path / "source"
    new = ("--data", text, "--out-dir", source, "--n-layer", 2, "--dropout", 0)
    call(train.main, *tiny(*new, *flags))

    def exported(run: Path):
        out = tmp_path / f"{run.name}-export"
        call(export.main, run, "--to", to, "--out", out)
        return twin(runs.load_run(run).config.model, load_file(out / "model.safetensors"))

    theirs = exported(source)
    fine = fine_tuned(source, text)
    trained = Trained(fine, load_run(fine), theirs)
    again = exported(fine).eval()
    ours = np.asarray(forward(trained.run.model, trained.run.params, ids_of(trained.run)))
    assert_close(torch_logits(again, ids_of(trained.run)), ours, LOGITS)
    assert_trained_alike(trained)
