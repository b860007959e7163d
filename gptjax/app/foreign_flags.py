"""Flags of other programs that users type here, and what to type instead.

We have nanoGPT's flags except for those listed here. OTHER_NAMES maps other programs' names of a
flag to ours. A test checks that every flag named in the advice exists.
"""

from collections.abc import Mapping

# One line of advice per flag, or one per value of the flag; "" stands for any other value.
Advice = Mapping[str, str | Mapping[str, str]]

_DEVICE = "JAX takes the device that it finds; JAX_PLATFORMS=cpu before the command chooses one"
_COMPILE = "everything is compiled always: leave it out"
_CURVES = "metrics.jsonl and loss.png in the run's folder have the curves: leave it out"

TRAIN: Advice = {
    "--device": _DEVICE,
    "--compile": _COMPILE,
    "--backend": "no backend needs to be chosen: leave it out",
    "--dataset": "--data FILE trains on a text; without it, on tiny Shakespeare",
    "--always-save-checkpoint": "each evaluation saves a checkpoint, and --keep N of the newest "
    "stay besides the best: leave it out",
    "--wandb-log": _CURVES,
    "--wandb-project": _CURVES,
    "--wandb-run-name": _CURVES,
    "--decay-lr": {
        "false": "--min-lr equal to --learning-rate keeps the rate as it is after the warm-up",
        "": "the learning rate falls to --min-lr always: leave it out",
    },
    "--lr-decay-iters": "the learning rate falls until --max-iters: leave it out",
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
        "resume": "--out-dir names the run, by default the newest: leave it out",
        "": "--from-huggingface FOLDER samples from the GPT-2 in a folder",
    },
    "--start": "--prompt TEXT gives the text to continue, --prompt-file FILE reads it from a file",
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
