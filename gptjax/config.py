"""Configuration: frozen, hashable, validated dataclasses and their JSON form.

`GPTConfig` describes the model, and `TrainConfig` how it is trained. `RunConfig` holds both, with
the text, the seed and the name of the model: everything that defines a run, and everything that
config.json stores.
Field names are nanoGPT's where nanoGPT has them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

from gptjax.errors import InputError
from gptjax.fields import MAX_INT, check, check_types, flag, from_dict

Activation = Literal["relu", "gelu", "gelu_tanh"]
Dtype = Literal["float32", "bfloat16"]
Decay = Literal["matrices", "all"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear"]
OnDevice = Literal["auto", "yes", "no"]
# With `data_on_device` auto, a text of more bytes of ids than this stays on the host.
DEVICE_BYTES = 2**28

# Limits for a config.json that was not checked against its arrays yet. No published transformer
# comes near them.
MAX_LAYERS = 1024
MAX_WIDTH = 2**20

# From this depth on, blocks are scanned by default: unrolled, compiling takes longer with each
# block, and at 12 a third longer than scanned (docs/results.md).
SCANNED_FROM = 12


def check_seed(seed: int) -> None:
    """A seed is a whole number of 32 bits, so that it makes the same key on every platform.

    Raises:
        ConfigError: it is not.
    """
    check(0 <= seed < 2**32, "seed", seed, "must be at least 0 and below 2**32")


@dataclass(frozen=True)
class GPTConfig:
    """The model. The defaults are the lecture's.

    Settings for three well-known models:

    |                      | the lecture's | nanoGPT, bias=False | GPT-2     |
    |----------------------|---------------|---------------------|-----------|
    | activation           | relu          | gelu                | gelu_tanh |
    | qkv_bias             | no            | no                  | yes       |
    | bias, ln_bias        | yes           | no                  | yes       |
    | tie_embeddings       | no            | yes                 | yes       |
    | head_bias            | yes           | no                  | no        |
    | scaled_residual_init | no            | yes                 | yes       |
    | embd_dropout         | no            | yes                 | yes       |

    Raises:
        ConfigError: a value is of the wrong type or out of its range.
    """

    vocab_size: int = 65  # tiny Shakespeare's; a run takes it from its tokenizer
    block_size: int = flag(256, "longest context, in tokens")
    n_layer: int = flag(6, "number of blocks")
    n_head: int = flag(6, "attention heads per block")
    n_embd: int = flag(384, "width of the residual stream; divisible by n_head")
    dropout: float = flag(0.2, "dropout rate for attention weights and for each block's outputs")
    activation: Activation = flag(
        "relu", "feed-forward activation; gelu is exact, gelu_tanh is GPT-2's"
    )
    qkv_bias: bool = flag(False, "bias in query, key and value")
    bias: bool = flag(True, "bias in the other dense layers of the blocks")
    ln_bias: bool = flag(True, "bias in LayerNorm")
    tie_embeddings: bool = flag(False, "output layer shares the token table")
    head_bias: bool = flag(True, "bias in the output layer, tied or not")
    init_std: float = flag(
        0.02, "standard deviation of initial weights; narrow models need a larger one"
    )
    scaled_residual_init: bool = flag(
        False, "residual projections start at init_std / sqrt(2 n_layer), as in GPT-2"
    )
    embd_dropout: bool = flag(False, "dropout on the embeddings too, as in GPT-2 and nanoGPT")
    dtype: Dtype = flag("float32", "dtype of the computation; parameters are always float32")

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        check(self.n_layer <= MAX_LAYERS, "n_layer", self.n_layer, f"must be at most {MAX_LAYERS}")
        check(self.n_embd <= MAX_WIDTH, "n_embd", self.n_embd, f"must be at most {MAX_WIDTH}")
        check(self.init_std > 0, "init_std", self.init_std, "must be above 0")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "must be at least 0 and less than 1")
        check(
            self.n_embd % self.n_head == 0,
            "n_embd",
            self.n_embd,
            f"must be divisible by n_head ({self.n_head})",
        )

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.n_embd // self.n_head


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained, evaluated and saved.

    Raises:
        ConfigError: a value is of the wrong type or out of its range.
    """

    batch_size: int = flag(64, "sequences per micro-batch")
    gradient_accumulation_steps: int = flag(1, "micro-batches per update")
    micro_batch_size: int = flag(
        0,
        "sequences computed at once, a divisor of batch_size, or 0 for all; the fastest by default",
    )
    max_iters: int = flag(5000, "number of updates; the learning rate reaches min_lr at the last")
    optimizer: Optimizer = flag(
        "adamw", "adamw; muon: Muon for the blocks' matrices, AdamW elsewhere"
    )
    learning_rate: float = flag(
        1e-3, "peak learning rate; 0.004 for shakespeare-cpu with --optimizer adamw"
    )
    min_lr: float = flag(
        1e-4, "learning rate at the end of the run; scaled with learning_rate unless given"
    )
    trainable: str = flag(
        "all", "parameters to train: all, ln, last:N blocks, or parts of paths, as in mlp,wpe"
    )
    schedule: Schedule = flag("cosine", "how the learning rate falls from its peak to min_lr")
    warmup_iters: int = flag(100, "updates of linear warm-up, at most a tenth of max_iters")
    schedule_start: int = 0  # the step at which the schedule begins: set by a resume with --rewarm
    weight_decay: float = flag(0.1, "AdamW's decoupled weight decay")
    decay: Decay = flag(
        "matrices", "parameters that decay: matrices only, or all, as in the lecture"
    )
    beta1: float = flag(0.9, "decay rate of the mean gradient, for AdamW and Muon")
    beta2: float = flag(0.99, "decay rate of the mean squared gradient, for AdamW")
    grad_clip: float = flag(1.0, "clip the gradient to this global norm; 0 for no clipping")
    remat: bool = flag(
        False, "recompute activations inside blocks: less memory, a third more arithmetic"
    )
    scan_layers: bool | None = flag(
        None,
        "compile one block and run it for every layer: starts faster, with the same result; on by "
        "default from 12 blocks",
    )
    eval_interval: int = flag(250, "updates between evaluations; each one saves a checkpoint")
    eval_iters: int = flag(
        0, "validation batches per evaluation, spread evenly over the split; 0 is the whole split"
    )
    log_interval: int = flag(10, "updates between log lines")
    keep: int = flag(2, "newest checkpoints to keep, in addition to the best")
    max_minutes: float = flag(0.0, "stop, save and exit after this many minutes; 0 for no limit")
    save_interval_minutes: float = flag(
        10.0, "minutes between saves, in addition to those at evaluations; 0 for evaluations only"
    )
    skip_nonfinite: bool = flag(
        False,
        "skip and count updates with a loss or gradient that is not finite, instead of stopping",
    )

    @property
    def trains_some_blocks(self) -> bool:
        """Whether `trainable` names blocks by their number."""
        return "last:" in self.trainable or "block_" in self.trainable

    @property
    def sequences_at_once(self) -> int:
        """How many sequences of a batch are computed at once."""
        return self.micro_batch_size or self.batch_size

    @property
    def sequences_per_update(self) -> int:
        """Sequences in the batch of one update, all its micro-batches together."""
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def eval_windows(self) -> int:
        """Windows of the validation split that an evaluation reads; 0 is all of them."""
        return self.eval_iters * self.batch_size

    def __post_init__(self) -> None:
        check_types(self)
        for name in (
            "batch_size gradient_accumulation_steps max_iters eval_interval log_interval keep"
        ).split():
            check(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        for name in (
            "learning_rate min_lr warmup_iters weight_decay grad_clip eval_iters max_minutes "
            "save_interval_minutes micro_batch_size schedule_start"
        ).split():
            check(getattr(self, name) >= 0, name, getattr(self, name), "must be at least 0")
        check(
            self.micro_batch_size == 0 or self.batch_size % self.micro_batch_size == 0,
            "micro_batch_size",
            self.micro_batch_size,
            f"must divide batch_size ({self.batch_size}), or be 0 for all of it",
        )
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            check(0 <= value < 1, name, value, "must be at least 0 and less than 1")
        for item in self.trainable.split(","):
            last = item.removeprefix("last:")
            check(
                bool(item) and (last == item or (last.isascii() and last.isdecimal())),
                "trainable",
                repr(self.trainable),
                "must be items joined by commas: all, ln, last:N, or parts of paths, as in mlp,wpe",
            )
        check(
            self.min_lr <= self.learning_rate,
            "min_lr",
            self.min_lr,
            f"must be at most learning_rate ({self.learning_rate}): give a smaller min_lr",
        )


@dataclass(frozen=True)
class RunConfig:
    """One run: a model, its training, its text and its seed.

    Attributes:
        model_name: which module the parameters belong to: `gpt`, or a rung of the lecture.
        preset: the preset that the run started from.
        data: `shakespeare`, the absolute path of a text file, of a prepared folder or of a pattern,
            or `-` for a text from a pipe.
        data_sha256: of the text's bytes, or of a prepared text's files; a resume on another text is
            refused.
        tokenizer: how the text is tokenized; the run's tokenizer.json has the vocabulary. None
            means characters: it is the default, and the value in runs of 0.1.0.
        init_from: the absolute path of the run or folder whose weights the run started from; None
            means fresh weights.
        seed: determines every random number of the run.
    """

    model: GPTConfig = GPTConfig()
    train: TrainConfig = TrainConfig()
    model_name: str = "gpt"
    preset: str = "shakespeare"
    data: str = flag(
        "shakespeare",
        "`shakespeare`, a UTF-8 text file, a pattern for several files, a prepared folder, or - "
        "for standard input",
        path=True,
    )
    data_sha256: str = ""
    tokenizer: str | None = flag(
        None, "char, byte, bpe, gpt2, or a folder with GPT-2's vocabulary [char]", path=True
    )
    init_from: str | None = flag(
        None,
        "start from the weights and tokenizer of a run or a GPT-2 folder; the default preset is "
        "then gpt2-finetune",
        path=True,
    )
    data_on_device: OnDevice = flag(
        "auto",
        "keep the text's ids on the device, or read them from the host (no); auto keeps up to "
        f"{DEVICE_BYTES // 2**20} MiB",
    )
    seed: int = flag(1337, "seed for parameters, batches and dropout", int32=False)
    deterministic: bool = flag(False, "on a GPU, use only deterministic kernels (slower)")

    @property
    def tokens_per_update(self) -> int:
        """Targets that one update learns from."""
        return self.train.sequences_per_update * self.model.block_size

    @property
    def scans_layers(self) -> bool:
        """Whether the blocks are scanned in memory (backends/scanned.py)."""
        if self.train.scan_layers is not None:
            return self.train.scan_layers
        is_deep = self.model_name == "gpt" and self.model.n_layer >= SCANNED_FROM
        return is_deep and not self.train.trains_some_blocks

    def __post_init__(self) -> None:
        check_types(self)
        check_seed(self.seed)
        train = self.train
        for name in ("remat", "scan_layers"):
            check(
                self.model_name == "gpt" or not getattr(train, name),
                name,
                getattr(train, name),
                f"must be False for {self.model_name!r}: only the GPT supports it",
            )
        check(
            not (train.scan_layers and train.trains_some_blocks),
            "scan_layers",
            train.scan_layers,
            f"must be False with trainable {train.trainable}: scanned blocks are trained together",
        )
        tokens = train.sequences_per_update * (self.model.block_size + 1)
        check(
            tokens < MAX_INT,
            "batch_size",
            train.batch_size,
            "times gradient_accumulation_steps times (block_size + 1), an update's tokens, must be "
            f"below 2**31; it is {tokens}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: an entry is unknown, of the wrong type or out of its range.
        """
        return from_dict(cls, values)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, each named flat: `n_layer` reaches into `model`.

        Raises:
            InputError: a field is unknown, or a new value is wrong.
        """
        parts: dict[str, dict[str, Any]] = {"model": {}, "train": {}, "run": {}}
        for name, value in changes.items():
            parts[owner(name)][name] = value
        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, **parts["model"]),
            train=dataclasses.replace(self.train, **parts["train"]),
            **parts["run"],
        )

    def flat(self, name: str) -> Any:
        """The value of a field named flat, as in `replace`."""
        part = owner(name)
        return getattr(self if part == "run" else getattr(self, part), name)


def owner(name: str) -> str:
    """Which part of a RunConfig holds the field `name`: `model`, `train` or `run`.

    Raises:
        InputError: no part has such a field.
    """
    for part, cls in (("model", GPTConfig), ("train", TrainConfig), ("run", RunConfig)):
        if name in cls.__dataclass_fields__:
            return part
    raise InputError(f"{name}: no such field of a run's configuration")
