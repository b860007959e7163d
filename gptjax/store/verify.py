"""Checks a whole run: every file must be unchanged since it was written, and valid."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.errors import InputError
from gptjax.store import checkpoint, listing, runs
from gptjax.store.lines import count_lines
from gptjax.store.manifest import DamagedError
from gptjax.store.metrics import read_metrics
from gptjax.store.samples import read_samples
from gptjax.training import init_state, make_keys


class Finding(NamedTuple):
    """One line about a run, and whether it is good."""

    text: str
    well: bool = True


def check_run(path: Path) -> Iterator[Finding]:
    """Yields a finding about each part of the run at `path`. Writes nothing.

    Reads each checkpoint as a resume would, one at a time.

    Raises:
        InputError: `path` contains no run, or its config.json or tokenizer.json cannot be read.
    """
    run_config, _ = runs.read_run(path)
    model = runs.make_model(run_config)
    yield Finding(f"good  {path / runs.CONFIG}, {runs.TOKENIZER}: {run_config.model_name}")
    yield _check_lines(path / runs.METRICS, read_metrics, "metrics")
    if os.path.lexists(path / runs.SAMPLES):  # runs of 0.2.0 and before have none
        yield _check_lines(path / runs.SAMPLES, read_samples, "samples")
    abstract = jax.eval_shape(lambda k: init_state(model, run_config, k), make_keys(0).params)
    found, problems = listing.list_checkpoints(path / runs.CHECKPOINTS)
    for problem in problems:
        yield Finding(f"BAD   {problem}", False)
    good = []
    for one in found:
        try:
            state = checkpoint.load_state(one.path, abstract)
            if not all(np.isfinite(x).all() for x in jax.tree.leaves(state)):
                raise DamagedError(f"checkpoint {one.path} contains numbers that are not finite")
        except DamagedError as error:
            yield Finding(f"BAD   {error}", False)
            continue
        good.append(one)
        loss = "not evaluated" if one.val_loss is None else f"validation loss {one.val_loss:.4f}"
        yield Finding(f"good  checkpoint {one.path}: {loss}")
    for folder in sorted((path / runs.CHECKPOINTS).glob("*-*")):
        if folder.name.startswith("damaged-"):
            yield Finding(f"aside {folder}: a resume found it damaged; it is not used")
        elif folder.name.startswith(("tmp-", "unused-")):
            yield Finding(f"aside {folder}: left unfinished by a process; the next one removes it")
    if not good:
        yield Finding("no good checkpoint: --resume would start from step 0", False)
        return
    best = listing.best(good)
    yield Finding(
        f"--resume would continue from step {good[-1].step}"
        + ("" if best is None else f"; the best is step {best.step}")
    )


def _check_lines(
    path: Path, read: Callable[[Path], Iterator[dict[str, Any]]], what: str
) -> Finding:
    try:
        lines, there = sum(1 for _ in read(path)), count_lines(path)
    except InputError as error:
        return Finding(f"BAD   {error}", False)
    if lines < there:
        return Finding(f"BAD   {path}: {there - lines} of {there} lines are not {what}", False)
    return Finding(f"good  {path}: {lines} lines, each step once and in order")
