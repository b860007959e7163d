"""The data about a run that the page contains, as plain values for JSON."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gptjax.model import num_params
from gptjax.store import runs
from gptjax.store.metrics import Thinned, read_metrics
from gptjax.store.samples import read_samples
from gptjax.text.records import CORPORA
from gptjax.tokenizer import CharTokenizer
from gptjax.version import __version__

CURVES = ("train_loss", "val_loss", "learning_rate", "tokens_per_second")
MAX_POINTS = 1000  # per curve; a screen does not have pixels for more
MAX_SAMPLES = 64

# Losses for comparison, in nats per character of tiny Shakespeare. The first is computed from the
# text's characters; the others are from README's table.
SHAKESPEARE = (
    ("how frequent each character is", 3.35),
    ("the lecture's bigram", 2.49),
    ("one head of attention", 2.40),
    ("nanoGPT on a laptop", 1.88),
    ("the lecture's largest model", 1.48),
)


def describe(path: Path, run: runs.Run) -> dict[str, Any]:
    """Returns everything about a run except its parameters.

    Of the text's path, it keeps only the file name, because users may share the page and a path can
    contain their name.

    Raises:
        InputError: metrics.jsonl or samples.jsonl is not a regular file.
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
    """The points (step, value) of each curve: at most `MAX_POINTS`, always including the last."""
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
    """At most `limit` evenly spaced values, including the first and the last."""
    if len(values) <= limit:
        return values
    return [values[round(i * (len(values) - 1) / (limit - 1))] for i in range(limit)]


def scale(run: runs.Run) -> list[tuple[str, float]]:
    """Losses for comparison, largest first: of knowing nothing, and of known models."""
    nothing = [("knowing nothing", math.log(run.config.model.vocab_size))]
    is_known = run.config.data_sha256 == CORPORA["shakespeare"].files[0].sha256
    by_character = isinstance(run.tokenizer, CharTokenizer)
    return nothing + (list(SHAKESPEARE) if is_known and by_character else [])


def _from_bottom_to_top(part: str) -> tuple[int, int, str]:
    """Sort key for the parts of a model: embeddings, blocks by number, the parts after them."""
    order = ["wte", "wpe", "table", "head", "attn", "mlp", "block", "trunk", "ln_f", "lm_head"]
    name, _, number = part.partition("_") if part.startswith("block_") else (part, "", "0")
    return order.index(name) if name in order else len(order), int(number), part
