"""A run's folder: what is in it, how one is made, found and read.

config.json      RunConfig, the text's sha256, this code's version
tokenizer.json   the vocabulary
metrics.jsonl    a line per logged step
checkpoints/     see checkpoint.py
loss.png
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.files import read_json, temporary_prefix, write_json
from gptjax.model import GPT
from gptjax.rungs import RUNGS, VARIANTS
from gptjax.store import checkpoint as checkpoints
from gptjax.store import listing, manifest
from gptjax.tokenizer import CharTokenizer
from gptjax.training import TrainState, init_params, init_state
from gptjax.version import __version__

FORMAT = 1
RUNS = Path("runs")
CONFIG, TOKENIZER, METRICS = "config.json", "tokenizer.json", "metrics.jsonl"
CHECKPOINTS, PICTURE = "checkpoints", "loss.png"
WRITTEN = (METRICS, PICTURE, TOKENIZER, CONFIG)
MAX_CONFIG_BYTES = 2**20
TRAIN = "`gptjax train` (in a clone, `python train.py`)"
MODELS: dict[str, Callable[[Any], nn.Module]] = {"gpt": GPT, **RUNGS, **VARIANTS}


class Run(NamedTuple):
    """A trained model, ready to sample from."""

    model: nn.Module
    config: RunConfig
    params: Any
    tokenizer: CharTokenizer
    step: int


def make_model(run_config: RunConfig) -> nn.Module:
    """The module that a run's parameters belong to.

    Raises:
        InputError: `model_name` is unknown to this version.
    """
    if run_config.model_name not in MODELS:
        raise InputError(f"model {run_config.model_name!r} must be one of {', '.join(MODELS)}")
    return MODELS[run_config.model_name](run_config.model)


def initial_state(run_config: RunConfig, key: jax.Array) -> TrainState:
    """A run's state before its first update; its key is `make_keys(config.seed).params`."""
    return init_state(make_model(run_config), run_config, key)


def abstract_params(model: nn.Module) -> Any:
    """Shapes and dtypes of a model's parameters; nothing is computed or allocated."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def load_run(
    path: str | Path, step: str | int = "best", tell: Callable[[str], None] = lambda _: None
) -> Run:
    """Reads a run's model. Neither its text nor its optimizer is needed, nor the same hardware.

    Args:
        path: the run's folder.
        step: `best` by validation loss, `latest`, or a step that was kept.
        tell: receives a line for each damaged checkpoint that is passed over.

    Raises:
        InputError: the folder holds no run, or no whole checkpoint of that step; the message
            lists the steps that there are.
    """
    path = Path(path)
    run_config, tokenizer = read_run(path)
    model = make_model(run_config)
    found, problems = listing.list_checkpoints(path / CHECKPOINTS)
    for problem in problems:
        tell(problem)
    for chosen in _candidates(path, found, step):
        try:
            params = checkpoints.load_params(chosen.path, abstract_params(model))
            return Run(model, run_config, params, tokenizer, chosen.step)
        except manifest.DamagedError as error:
            if isinstance(step, int):
                raise
            tell(str(error))
    raise InputError(f"{path} holds no whole checkpoint: go on training with --resume")


def _candidates(
    path: Path, found: list[listing.Checkpoint], step: str | int
) -> list[listing.Checkpoint]:
    """The checkpoints to try, in order: what was asked for, then the newest."""
    newest_first = found[::-1]
    if step == "latest":
        return newest_first
    if step == "best":
        return sorted(
            newest_first, key=lambda c: float("inf") if c.val_loss is None else c.val_loss
        )
    chosen = [c for c in found if c.step == step]
    if not chosen:
        there = ", ".join(str(c.step) for c in found) or "none"
        raise InputError(f"{path} has no checkpoint of step {step}: it has {there}")
    return chosen


def is_run(path: Path) -> bool:
    """Whether a folder holds a run: config.json says so."""
    return (path / CONFIG).is_file()


def read_run(path: Path) -> tuple[RunConfig, CharTokenizer]:
    """The configuration and the tokenizer of a run.

    Raises:
        InputError: there is no such folder or no run in it, or a file is not what a run writes.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; train a model first, with {TRAIN}")
    if not is_run(path):
        raise InputError(f"{path} holds no run ({CONFIG} is missing): give a folder of train.py's")
    stored = read_json(path / CONFIG, MAX_CONFIG_BYTES)
    writer = f"written by gptjax {stored.get('version')!s:.40}; this is gptjax {__version__}"
    if stored.get("format") != FORMAT:
        raise InputError(
            f"{path / CONFIG} has format {stored.get('format')!r:.40}, {writer}, which reads "
            f"format {FORMAT}"
        )
    try:
        run_config = RunConfig.from_dict(stored.get("config", {}))
        tokenizer = CharTokenizer.from_dict(read_json(path / TOKENIZER))
    except InputError as error:
        # Naming the version explains nothing if it is the same: name the likely causes instead.
        same = stored.get("version") == __version__
        why = "a later gptjax wrote it, or it was edited" if same else writer
        raise InputError(f"{path}: {error} ({why})") from error
    if tokenizer.vocab_size != run_config.model.vocab_size:
        raise InputError(
            f"{path}: {TOKENIZER} has {tokenizer.vocab_size} ids, and {CONFIG} says vocab_size "
            f"({run_config.model.vocab_size})"
        )
    return run_config, tokenizer


def write_run(path: Path, run_config: RunConfig, tokenizer: CharTokenizer) -> None:
    """Writes what a sampler needs besides parameters; config.json, which makes it a run, last."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / TOKENIZER, tokenizer.to_dict())
    write_config(path, run_config)


def write_config(path: Path, run_config: RunConfig) -> None:
    """Writes config.json alone."""
    stored = {"format": FORMAT, "version": __version__, "config": run_config.to_dict()}
    write_json(path / CONFIG, stored)


def check_free(path: Path, overwrite: bool) -> None:
    """A new run may go to a folder that is missing or empty, or replace a run if asked to.

    Raises:
        InputError: the folder holds something; nothing in it was touched.
    """
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        raise InputError(f"out_dir {path} is a file: give the path of a folder")
    if is_run(path) and not overwrite:
        raise InputError(
            f"out_dir {path} holds a run: --resume goes on with it, --overwrite replaces it, "
            "or give another --out-dir"
        )
    if path.is_dir() and not is_run(path) and any(not _is_beginning(p) for p in path.iterdir()):
        raise InputError(f"out_dir {path} is not empty and holds no run: give another --out-dir")


def remove_run(path: Path) -> None:
    """Removes what a run writes and nothing else; config.json last, so that it stays a run."""
    listing.check_no_link(path / CHECKPOINTS)
    shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
    remove_temporaries(path)
    for name in WRITTEN:
        (path / name).unlink(missing_ok=True)


def remove_temporaries(path: Path) -> None:
    """Removes the unfinished files that a killed process left in a run's folder."""
    for file in path.iterdir() if path.is_dir() else ():
        if _is_temporary(file):
            file.unlink()


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(tuple(temporary_prefix(Path(name)) for name in WRITTEN))


def _is_beginning(path: Path) -> bool:
    """Whether a file is what a process leaves that is killed before config.json is written."""
    if path.name != TOKENIZER:
        return _is_temporary(path)
    try:
        CharTokenizer.from_dict(read_json(path))
    except InputError:
        return False
    return True


def new_folder(preset: str, runs: Path = RUNS) -> Path:
    """runs/<preset>-<date>-<time>, with a number behind it if that exists already."""
    base = runs / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, n = base, 2
    while path.exists():
        path, n = base.with_name(f"{base.name}-{n}"), n + 1
    return path


def newest_run(runs: Path = RUNS, with_checkpoint: bool = False) -> Path:
    """The run under `runs` that was written to last.

    Raises:
        InputError: there is none.
    """
    candidates = [
        path
        for path in (runs.iterdir() if runs.is_dir() else ())
        if is_run(path) and (not with_checkpoint or listing.list_checkpoints(path / CHECKPOINTS)[0])
    ]
    if not candidates:
        what = "run with a checkpoint" if with_checkpoint else "run"
        raise InputError(f"no {what} under {runs}/: train one with {TRAIN}, or give --out-dir")

    def written(path: Path) -> float:
        return max(p.stat().st_mtime for p in (path / CONFIG, path / METRICS) if p.exists())

    return max(candidates, key=lambda path: (written(path), path.name))
