"""Five seeds trained at once with `vmap`, as in the lecture's ladder, beside one seed."""

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from gptjax.lecture.ladder import init_seeds, make_seeds_loop
from gptjax.presets import PRESETS
from gptjax.store.runs import make_model

Row = dict[str, Any]
MODELS = ("layernorm", "notebook", "shakespeare-cpu")
TOY = "bigram"
SEEDS = 5


def measure(found: Callable[[Row], None], *, quick: bool) -> None:
    """Measures a row for each model: seconds per update for one seed and for all."""
    updates = 2 if quick else 100
    ids = np.random.default_rng(0).integers(0, 65, 100_000)
    tokens = jnp.asarray(ids.astype(np.uint8))
    for name in (TOY,) if quick else MODELS:
        run_config = PRESETS[name].replace(vocab_size=65)
        model = make_model(run_config)
        row: Row = {"key": name, "model": name}
        for count in (1, SEEDS):
            states, keys = init_seeds(model, run_config, list(range(count)))
            loop = make_seeds_loop(model, run_config)
            seconds = []
            for _ in range(4):  # the first compiles
                began = time.perf_counter()
                states, metrics = loop(states, tokens, keys, updates)
                np.asarray(metrics.loss)
                seconds.append((time.perf_counter() - began) / updates)
            row[str(count)] = sorted(seconds[1:])[1]
        found(row)


def table(rows: list[Row], **_: Any) -> str:
    """A line for each model."""
    lines = [
        f"| preset | ms an update, one seed | {SEEDS} seeds | times one |",
        "|---|--:|--:|--:|",
    ]
    for row in rows:
        one, many = row["1"], row[str(SEEDS)]
        lines.append(
            f"| `{row['model']}` | {1000 * one:,.3f} | {1000 * many:,.3f} | {many / one:.2f} |"
        )
    return "\n".join(lines)
