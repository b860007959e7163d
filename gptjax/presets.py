"""The presets: named configurations to start from, by `train.py --preset` or `PRESETS[name]`."""

from collections.abc import Mapping
from typing import Any

from gptjax.config import GPTConfig, RunConfig, TrainConfig
from gptjax.errors import InputError


def derive(preset: RunConfig, name: str, **changes: Any) -> RunConfig:
    """A preset of this name from another, with some fields changed, each named flat."""
    return preset.replace(preset=name, **changes)


def _rung(name: str, **changes: Any) -> RunConfig:
    """A rung of the lecture: the model of that name, trained as the lecture trains."""
    return derive(_LECTURE, name, **{"model_name": name, **changes})


# 32 wide, contexts of 8, PyTorch's AdamW at its defaults.
_LECTURE = RunConfig(
    model=GPTConfig(block_size=8, n_layer=1, n_head=1, n_embd=32, dropout=0.0),
    train=TrainConfig(
        batch_size=32,
        max_iters=5000,
        learning_rate=1e-3,
        min_lr=1e-3,
        warmup_iters=0,
        weight_decay=0.01,
        decay="all",
        beta2=0.999,
        grad_clip=0.0,
        eval_interval=500,
    ),
)

PRESETS: dict[str, RunConfig] = {
    # The lecture's last model and nanoGPT's train_shakespeare_char, for a GPU or a TPU.
    "shakespeare": RunConfig(
        preset="shakespeare",
        model=GPTConfig(
            activation="gelu",
            bias=False,
            ln_bias=False,
            tie_embeddings=True,
            head_bias=False,
            scaled_residual_init=True,
            embd_dropout=True,
            dtype="bfloat16",
        ),
    ),
    # For two CPU cores and three to four minutes; docs/log/settings.md has the search.
    "shakespeare-cpu": RunConfig(
        preset="shakespeare-cpu",
        model=GPTConfig(
            block_size=128,
            n_layer=4,
            n_head=4,
            n_embd=128,
            dropout=0.0,
            init_std=0.06,
            scaled_residual_init=True,
        ),
        train=TrainConfig(
            batch_size=12,
            max_iters=2000,
            optimizer="muon",
            learning_rate=2e-2,
            min_lr=0.0,
            schedule="linear",
            eval_interval=250,
        ),
    ),
    # The lecture's models, from the first to the last that it trains on a CPU.
    "bigram": _rung("bigram", max_iters=3000, learning_rate=1e-2, min_lr=1e-2),
    "head": _rung("head"),
    "multihead": _rung("multihead", n_head=4),
    "feedforward": _rung("feedforward", n_head=4),
    "residual": _rung("residual", n_head=4, n_layer=3),
    # From here on it is the GPT itself.
    "layernorm": _rung("layernorm", model_name="gpt", n_head=4, n_layer=3),
}
PRESETS["notebook"] = derive(
    PRESETS["layernorm"], "notebook", n_layer=4, n_embd=64, block_size=32, batch_size=16
)

# GPT-2 in its four sizes, with GPT-2's own vocabulary. 480 sequences an update, as in nanoGPT's
# train_gpt2; learning rates of Brown et al., "Language models are few-shot learners", table 2.1.
PRESETS["gpt2"] = RunConfig(
    preset="gpt2",
    model=GPTConfig(
        vocab_size=50257,
        block_size=1024,
        n_layer=12,
        n_head=12,
        n_embd=768,
        dropout=0.0,
        activation="gelu_tanh",
        qkv_bias=True,
        tie_embeddings=True,
        head_bias=False,
        scaled_residual_init=True,
        embd_dropout=True,
        dtype="bfloat16",
    ),
    train=TrainConfig(
        batch_size=12,
        gradient_accumulation_steps=40,
        max_iters=600_000,
        learning_rate=6e-4,
        min_lr=6e-5,
        warmup_iters=2000,
        beta2=0.95,
        eval_interval=1000,
        eval_iters=200,
    ),
)
for _name, _size in {
    "gpt2-medium": (24, 16, 1024, 8, 60, 3e-4),
    "gpt2-large": (36, 20, 1280, 4, 120, 2.5e-4),
    "gpt2-xl": (48, 25, 1600, 4, 120, 2e-4),
}.items():
    _layers, _heads, _width, _batch, _parts, _rate = _size
    PRESETS[_name] = derive(
        PRESETS["gpt2"],
        _name,
        n_layer=_layers,
        n_head=_heads,
        n_embd=_width,
        batch_size=_batch,
        gradient_accumulation_steps=_parts,
        learning_rate=_rate,
        min_lr=_rate / 10,
    )
# To adapt trained weights to a small text: a small, constant rate, and two passes over tiny
# Shakespeare (nanoGPT's finetune_shakespeare).
PRESETS["gpt2-finetune"] = derive(
    PRESETS["gpt2"],
    "gpt2-finetune",
    batch_size=1,
    gradient_accumulation_steps=32,
    max_iters=20,
    learning_rate=3e-5,
    min_lr=3e-5,
    warmup_iters=0,
    beta2=0.99,
    eval_interval=5,
    eval_iters=40,
    log_interval=1,
)


# By preset and optimizer: the learning rate for an optimizer that is not the preset's own. With
# Muon's 0.02, AdamW's loss ends 0.15 higher than with this rate.
RATES: Mapping[tuple[str, str | None], float] = {("shakespeare-cpu", "adamw"): 4e-3}


def preset_for(platform: str, name: str | None = None) -> RunConfig:
    """A preset adapted to a platform (`cpu`, `gpu`, `tpu`); by default the platform's preset.

    On a CPU a preset computes in float32: most processors only emulate bfloat16.

    Raises:
        InputError: there is no preset of that name.
    """
    name = name or ("shakespeare-cpu" if platform == "cpu" else "shakespeare")
    if name not in PRESETS:
        raise InputError(f"preset {name!r} must be one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    return preset.replace(dtype="float32") if platform == "cpu" else preset


def changed(preset: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A preset with some fields changed, each named flat.

    If they change `optimizer` and not `learning_rate`, the learning rate becomes the one in RATES,
    where there is one. If `learning_rate` changes and `min_lr` is not given, `min_lr`
    changes in proportion.

    Raises:
        InputError: as `RunConfig.replace`.
    """
    before, optimizer = preset.train, changes.get("optimizer")
    own = None if optimizer == before.optimizer else RATES.get((preset.preset, optimizer))
    if own is not None and "learning_rate" not in changes:
        changes = {**changes, "learning_rate": own}
    rate = changes.get("learning_rate")
    if rate is None or rate == before.learning_rate or "min_lr" in changes:
        return preset.replace(**changes)
    share = before.min_lr / before.learning_rate if before.learning_rate else 0.0
    return preset.replace(**changes, min_lr=min(rate, rate * share))  # rounding may exceed the rate
