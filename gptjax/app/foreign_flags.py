"""Flags of other programs that users type here, and what to type instead.

We have nanoGPT's flags except for those listed here. OTHER_NAMES maps other programs' names of a
flag to ours. A test checks that every flag named in the advice exists.
"""

from collections.abc import Mapping

# One line of advice per flag, or one per value of the flag; "" stands for any other value.
Advice = Mapping[str, str | Mapping[str, str]]

_DEVICE = "JAX uses the best device it finds; JAX_PLATFORMS=cpu before the command chooses another"
_COMPILE = "the code is always compiled: leave it out"
_CURVES = "the curves are in metrics.jsonl and loss.png in the run's folder: leave it out"

TRAIN: Advice = {
    "--device": _DEVICE,
    "--compile": _COMPILE,
    "--backend": "there is no backend to choose: leave it out",
    "--dataset": "--data FILE trains on a text; the default is tiny Shakespeare",
    "--always-save-checkpoint": "each evaluation saves a checkpoint; the best and the newest "
    "--keep N stay: leave it out",
    "--wandb-log": _CURVES,
    "--wandb-project": _CURVES,
    "--wandb-run-name": _CURVES,
    "--decay-lr": {
        "false": "--min-lr equal to --learning-rate keeps the rate constant after the warm-up",
        "": "the learning rate always decays to --min-lr: leave it out",
    },
    "--lr-decay-iters": "the learning rate decays until --max-iters: leave it out",
}
# Values of nanoGPT's --init_from that are not folders.
INIT_FROM: Mapping[str, str] = {
    "scratch": "a new run starts from scratch: leave it out",
    "resume": "--resume continues the newest run, or the one in --out-dir",
}
SAMPLE: Advice = {
    "--device": _DEVICE,
    "--compile": _COMPILE,
    "--init-from": {
        "resume": "--out-dir names the run, and the newest is the default: leave it out",
        "": "--from-huggingface FOLDER samples from the GPT-2 in this folder",
    },
    "--start": "--prompt TEXT is the text to continue; --prompt-file FILE reads it from a file",
    "--dataset": "a run has its own vocabulary: leave it out",
}
# nanoGPT's configuration files.
FILE = "settings are flags, or a --preset"

OTHER_NAMES = {
    "lr": "learning-rate",
    "wd": "weight-decay",
    "bs": "batch-size",
    "iters": "max-iters",
    "steps": "max-iters",
    "max-steps": "max-iters",
    "epochs": "max-iters",
    "layers": "n-layer",
    "num-layers": "n-layer",
    "heads": "n-head",
    "num-heads": "n-head",
    "dim": "n-embd",
    "d-model": "n-embd",
    "hidden-size": "n-embd",
    "embedding-size": "n-embd",
    "context-length": "block-size",
    "seq-len": "block-size",
    "max-seq-len": "block-size",
    "warmup": "warmup-iters",
    "warmup-steps": "warmup-iters",
    "random-seed": "seed",
    "text": "data",
    "input": "data",
    "output": "out-dir",
    "output-dir": "out-dir",
    "run-dir": "out-dir",
    "evaluate": "eval-only",
    "temp": "temperature",
    "length": "max-new-tokens",
    "max-length": "max-new-tokens",
    "max-tokens": "max-new-tokens",
    "num-tokens": "max-new-tokens",
}
