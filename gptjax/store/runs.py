"""A run's folder: its contents, and how to make, find and read one.

config.json      RunConfig, the text's sha256, gptjax's version, and what resumes changed
tokenizer.json   the vocabulary
metrics.jsonl    a line per logged step
samples.jsonl    a line per evaluation, with generated text
checkpoints/     see checkpoint.py
loss.png         the losses against steps
page.html        only with --page or `gptjax page`, see page/build.py
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.sharding import Mesh

from gptjax.backends.sharding import target
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.files import is_foreign, is_temporary, read_json, write_json
from gptjax.model import GPT
from gptjax.rungs import RUNGS, VARIANTS
from gptjax.store import checkpoint as checkpoints
from gptjax.store import listing, manifest
from gptjax.text import tokenizers
from gptjax.text.shell import found
from gptjax.training import TrainState, init_params, init_state
from gptjax.version import __version__

FORMAT = 1
RUNS = Path("runs")
CONFIG, TOKENIZER, METRICS = "config.json", "tokenizer.json", "metrics.jsonl"
SAMPLES = "samples.jsonl"
CHECKPOINTS, PICTURE, PAGE = "checkpoints", "loss.png", "page.html"
WRITTEN = (METRICS, SAMPLES, PICTURE, PAGE, TOKENIZER, CONFIG)
MAX_CONFIG_BYTES = 2**20
MAX_CHANGES = 1000  # about 100 bytes each, so config.json stays far below its limit
MODELS: dict[str, Callable[[Any], nn.Module]] = {"gpt": GPT, **RUNGS, **VARIANTS}


class Run(NamedTuple):
    """A trained model, ready to sample from."""

    model: nn.Module
    config: RunConfig
    params: Any
    tokenizer: tokenizers.Tokenizer
    step: int


def make_model(run_config: RunConfig) -> nn.Module:
    """Returns the module that a run trains.

    Raises:
        InputError: this version does not know `model_name`.
    """
    if run_config.model_name not in MODELS:
        raise InputError(f"model {run_config.model_name!r} must be one of {', '.join(MODELS)}")
    return MODELS[run_config.model_name](run_config.model)


def initial_state(run_config: RunConfig, key: jax.Array) -> TrainState:
    """A run's state before its first update. `key` must be `make_keys(config.seed).params`."""
    return init_state(make_model(run_config), run_config, key)


def abstract_params(model: nn.Module) -> Any:
    """Shapes and dtypes of a model's parameters, without computing or allocating them."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def load_run(
    path: str | Path,
    step: str | int = "best",
    tell: Callable[[str], None] = lambda _: None,
    mesh: Mesh | None = None,
) -> Run:
    """Loads a run's model. Needs neither the text nor the machine that it was trained on.

    Args:
        path: the run's folder.
        step: `best` by validation loss, `latest`, or the step of a checkpoint.
        tell: receives a line for each damaged checkpoint that is skipped.
        mesh: the devices that the parameters are divided over, by sharding.py's rules.

    Raises:
        InputError: the folder contains no run, or no whole checkpoint of that step; the message
            lists the steps that exist.
    """
    path = Path(path)
    run_config, tokenizer = read_run(path)
    model = make_model(run_config)
    found, problems = listing.list_checkpoints(path / CHECKPOINTS)
    for problem in problems:
        tell(problem)
    for chosen in _candidates(path, found, step):
        try:
            where = target(mesh, abstract_params(model))
            params = checkpoints.load_params(chosen.path, where)
            return Run(model, run_config, params, tokenizer, chosen.step)
        except manifest.DamagedError as error:
            if isinstance(step, int):
                raise
            tell(str(error))
    raise InputError(f"{path} has no complete checkpoint: continue training with --resume")


def _candidates(
    path: Path, found: list[listing.Checkpoint], step: str | int
) -> list[listing.Checkpoint]:
    """The checkpoints to try, in order, starting with the one that `step` names."""
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
        raise InputError(f"{path} has no checkpoint of step {step}: its steps are {there}")
    return chosen


def is_run(path: Path) -> bool:
    """Whether a folder contains a run: whether it has a config.json."""
    return (path / CONFIG).is_file()


def read_run(path: Path) -> tuple[RunConfig, tokenizers.Tokenizer]:
    """Reads the configuration and the tokenizer of a run.

    Raises:
        InputError: the folder does not exist or contains no run, or a file in it is not valid.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; train a model first, with `{found().train}`")
    if not is_run(path):
        raise InputError(
            f"{path} contains no run ({CONFIG} is missing): give a folder that train.py wrote"
        )
    stored = read_json(path / CONFIG, MAX_CONFIG_BYTES)
    writer = f"written by gptjax {stored.get('version')!s:.40}; this is gptjax {__version__}"
    if stored.get("format") != FORMAT:
        raise InputError(
            f"{path / CONFIG} has format {stored.get('format')!r:.40}, {writer}, which reads "
            f"format {FORMAT}"
        )
    try:
        run_config = RunConfig.from_dict(stored.get("config", {}))
        tokenizer = tokenizers.from_dict(read_json(path / TOKENIZER))
    except InputError as error:
        # If the versions are equal, they explain nothing: name the likely causes instead.
        same = stored.get("version") == __version__
        why = "a later gptjax wrote the file, or somebody edited it" if same else writer
        raise InputError(f"{path}: {error} ({why})") from error
    if tokenizer.vocab_size != run_config.model.vocab_size:
        raise InputError(
            f"{path}: {TOKENIZER} has {tokenizer.vocab_size} ids, but vocab_size in {CONFIG} is "
            f"{run_config.model.vocab_size}"
        )
    return run_config, tokenizer


def write_run(path: Path, run_config: RunConfig, tokenizer: tokenizers.Tokenizer) -> None:
    """Writes what sampling needs besides parameters. config.json comes last: it marks a run."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / TOKENIZER, tokenizer.to_dict())
    write_config(path, run_config)


def write_config(path: Path, run_config: RunConfig, changes: Sequence[dict[str, Any]] = ()) -> None:
    """Writes config.json alone.

    Args:
        changes: how resumes changed the run, oldest first. Each has the step, and [old, new] by
            field; also the version, if random numbers differ between the two.
    """
    stored = {"format": FORMAT, "version": __version__, "config": run_config.to_dict()}
    if changes:
        stored["changes"] = list(changes[-MAX_CHANGES:])
    write_json(path / CONFIG, stored)


def read_version(path: Path) -> str:
    """The version of gptjax that last wrote config.json."""
    return str(read_json(path / CONFIG, MAX_CONFIG_BYTES).get("version"))


def read_changes(path: Path) -> list[dict[str, Any]]:
    """The changes that config.json records, oldest first."""
    changes = read_json(path / CONFIG, MAX_CONFIG_BYTES).get("changes", [])
    return [x for x in changes if isinstance(x, dict)] if isinstance(changes, list) else []


def check_free(path: Path, overwrite: bool) -> None:
    """Checks that a new run overwrites nothing, unless `overwrite` allows it to replace a run.

    Other files in the folder (a log, notes) are allowed, and stay unchanged.

    Raises:
        InputError: a file in the folder would be overwritten; nothing was changed.
    """
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        raise InputError(f"out_dir {path} is a file: give the path of a folder")
    if is_run(path) and not overwrite:
        raise InputError(
            f"out_dir {path} contains a run: --resume continues it, --overwrite replaces it, "
            "or give another --out-dir"
        )
    taken = [] if is_run(path) else [p for p in _places(path) if os.path.lexists(p)]
    for place in taken:
        if not _is_beginning(place):
            raise InputError(
                f"out_dir {path} contains no run, but a new run would overwrite its {place.name}: "
                "move that away, or give another --out-dir"
            )


def remove_run(path: Path) -> None:
    """Removes the files that a run writes, and no others. Removes config.json last."""
    listing.remove_checkpoints(path / CHECKPOINTS)
    remove_temporaries(path)
    for name in WRITTEN:
        (path / name).unlink(missing_ok=True)


def remove_temporaries(path: Path) -> None:
    """Removes the unfinished files that a killed process left in a run's folder."""
    for file in path.iterdir() if path.is_dir() else ():
        if _is_temporary(file):
            file.unlink()


def _is_temporary(path: Path) -> bool:
    return any(is_temporary(path, name) for name in WRITTEN) and path.is_file()


def _places(path: Path) -> list[Path]:
    """The files and folders that a run in the folder `path` writes."""
    return [path / name for name in (*WRITTEN, CHECKPOINTS)]


def _is_beginning(path: Path) -> bool:
    """Whether a run may overwrite this path.

    It may overwrite an empty folder of checkpoints, and the tokenizer.json of a process that was
    killed before it wrote config.json.
    """
    if path.name == CHECKPOINTS and path.is_dir() and not path.is_symlink():
        return all(is_foreign(file.name) for file in path.iterdir())
    if path.name != TOKENIZER:
        return False
    try:
        tokenizers.from_dict(read_json(path))
    except InputError:
        return False
    return True


def remove_beginning(path: Path) -> None:
    """Removes the files of a process that ended before it wrote config.json."""
    remove_temporaries(path)
    if _is_beginning(path / TOKENIZER):
        (path / TOKENIZER).unlink()


def newest_run(runs: Path = RUNS, with_checkpoint: bool = False) -> Path:
    """Finds the run under `runs` that was written to last.

    Raises:
        InputError: there is no run.
    """
    candidates = [
        path
        for path in (runs.iterdir() if runs.is_dir() else ())
        if is_run(path) and (not with_checkpoint or listing.list_checkpoints(path / CHECKPOINTS)[0])
    ]
    if not candidates:
        what = "run with a checkpoint" if with_checkpoint else "run"
        raise InputError(
            f"no {what} under {runs}/: train one with `{found().train}`, or give --out-dir"
        )

    def written(path: Path) -> float:
        return max(p.stat().st_mtime for p in (path / CONFIG, path / METRICS) if p.exists())

    return max(candidates, key=lambda path: (written(path), path.name))
