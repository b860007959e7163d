"""What the page knows of a run, as plain values for JSON."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gptjax.model import num_params
from gptjax.store import runs
from gptjax.store.metrics import Thinned, read_metrics
from gptjax.store.samples import read_samples
from gptjax.text.corpora import CORPORA
from gptjax.tokenizer import CharTokenizer
from gptjax.version import __version__

CURVES = ("train_loss", "val_loss", "learning_rate", "tokens_per_second")
MAX_POINTS = 1000  # of a curve: more than a screen has pixels to show
MAX_SAMPLES = 64

# Losses that a reader can compare with, in nats per character of tiny Shakespeare: the first from
# counting the text's characters, the others from README's table.
SHAKESPEARE = (
    ("how frequent each character is", 3.35),
    ("the lecture's bigram", 2.49),
    ("one head of attention", 2.40),
    ("nanoGPT on a laptop", 1.88),
    ("the lecture's largest model", 1.48),
)


def describe(path: Path, run: runs.Run) -> dict[str, Any]:
    """Everything about a run but its parameters.

    The text's path is cut to its last part: the page may be passed on, and a path can name its
    owner.

    Raises:
        InputError: metrics.jsonl or samples.jsonl is no regular file.
    """
    settings = run.config.to_dict()
    text = settings["data"] if settings["data"] in ("-",) else Path(settings["data"]).name
    return {
        "name": path.resolve().name,
        "version": __version__,
        "step": run.step,
        "text": text,
        "config": {**settings["model"], "model_name": run.config.model_name},
        "training": {
            **settings["train"],
            "seed": run.config.seed,
            "preset": run.config.preset,
        },
        "tokenizer": run.tokenizer.to_dict(),
        "curves": curves(read_metrics(path / runs.METRICS)),
        "samples": spread(list(read_samples(path / runs.SAMPLES)), MAX_SAMPLES),
        "parameters": [
            {"part": name, "count": num_params(run.params[name])}
            for name in sorted(run.params, key=_from_bottom_to_top)
        ],
        "scale": [{"name": name, "loss": loss} for name, loss in scale(run)],
    }


def curves(lines: Iterable[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Points of each curve, (step, value), at most `MAX_POINTS`; the last is always there."""
    kept = {name: Thinned(MAX_POINTS) for name in CURVES}
    last: dict[str, tuple[float, float]] = {}
    for line in lines:
        for name in CURVES:
            if name in line:
                last[name] = (line["step"], line[name])
                kept[name].add(*last[name])
    for name, point in last.items():
        if kept[name].points[-1] != point:
            kept[name].points.append(point)
    return {name: thinned.points for name, thinned in kept.items() if thinned.points}


def spread(values: list[Any], limit: int) -> list[Any]:
    """At most `limit` of some values, evenly spread, the first and the last among them."""
    if len(values) <= limit:
        return values
    return [values[round(i * (len(values) - 1) / (limit - 1))] for i in range(limit)]


def scale(run: runs.Run) -> list[tuple[str, float]]:
    """Losses for comparison, the largest first: what knowing nothing costs, and known models'."""
    nothing = [("knowing nothing", math.log(run.config.model.vocab_size))]
    is_known = run.config.data_sha256 == CORPORA["shakespeare"].sha256
    by_character = isinstance(run.tokenizer, CharTokenizer)
    return nothing + (list(SHAKESPEARE) if is_known and by_character else [])


def _from_bottom_to_top(part: str) -> tuple[int, int, str]:
    """Sorts the parts of a model: embeddings, blocks by number, what comes after them."""
    order = ["wte", "wpe", "table", "head", "attn", "mlp", "block", "trunk", "ln_f", "lm_head"]
    name, _, number = part.partition("_") if part.startswith("block_") else (part, "", "0")
    return order.index(name) if name in order else len(order), int(number), part
