"""Makes tiny runs, reads their records, and compares two runs."""

import json
from pathlib import Path

import jax
import numpy as np

import train
from gptjax.store import checkpoint, listing, runs
from gptjax.training import init_state, make_keys

from conftest import tiny

TIMES = ("seconds", "tokens_per_second")


def go(path: Path, text_file: Path, *flags: str) -> int:
    """Trains a tiny run in this process."""
    return train.main(tiny("--data", text_file, "--out-dir", path, *flags))


def final_state(path: Path):
    """Reads the complete state in the newest checkpoint."""
    run_config, _ = runs.read_run(path)
    model = runs.make_model(run_config)
    abstract = jax.eval_shape(lambda k: init_state(model, run_config, k), make_keys(0).params)
    newest = listing.list_checkpoints(path / runs.CHECKPOINTS)[0][-1]
    return checkpoint.load_state(newest.path, abstract)


def assert_same_state(a: Path, b: Path) -> None:
    """Checks that two runs agree bit for bit: step, parameters and the optimizer's moments."""
    for x, y in zip(*(jax.tree.leaves(final_state(p)) for p in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def metrics(path: Path, *left_out: str) -> list[dict]:
    """The lines of metrics.jsonl, all of which must be complete."""
    text = (path / runs.METRICS).read_text()
    assert text == "" or text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k not in left_out} for line in lines]
