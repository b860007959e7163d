"""Reads what `--init-from` names: trained weights to start a new run from, and their tokenizer."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from gptjax.app.flags import as_flag
from gptjax.app.foreign_flags import INIT_FROM
from gptjax.backends.sharding import target
from gptjax.config import GPTConfig, RunConfig
from gptjax.errors import InputError
from gptjax.files import read_json
from gptjax.inference.adapt import with_block_size
from gptjax.interop.folder_weights import check_folder
from gptjax.interop.huggingface import load_huggingface
from gptjax.model import config_of
from gptjax.presets import changed
from gptjax.store import runs
from gptjax.text import tokenizers
from gptjax.training import TrainState, state_of

# The preset of a run that starts from trained weights, unless --preset names another.
PRESET = "gpt2-finetune"
# Model settings that the new run may choose. All others come from the weights.
FREE = ("block_size", "dropout", "embd_dropout", "dtype")


class Source(NamedTuple):
    """Trained weights: the path they came from, their model, and their tokenizer.

    `params` is the parameter tree in its form on disk, in host memory.
    """

    path: Path
    model_name: str
    model_config: GPTConfig
    params: Any
    tokenizer: tokenizers.Tokenizer


def read_source(path: Path, tell: Callable[[str], None]) -> Source:
    """Reads the best checkpoint of a run, or a Hugging Face folder with a GPT-2.

    Raises:
        InputError: the path is neither of these, or cannot be read.
    """
    if path.name in INIT_FROM and not path.exists():
        raise InputError(f"--init-from {path.name}: {INIT_FROM[path.name]}")
    check_folder(path)
    if "format" in read_json(path / runs.CONFIG, links=True):
        run = runs.load_run(path, "best", tell)
        found = run.config.model_name, run.config.model, run.params, run.tokenizer
    else:
        pretrained = load_huggingface(path, tell)
        tokenizer = tokenizers.gpt2(path).starting_with(pretrained.tokenizer.start_id)
        found = "gpt", config_of(pretrained.model), pretrained.params, tokenizer
    model_name, model_config, params, tokenizer = found
    if tokenizer.vocab_size != model_config.vocab_size:
        raise InputError(
            f"--init-from {path}: the vocabulary has {tokenizer.vocab_size} ids, but the weights "
            f"have {model_config.vocab_size}: for training, both must have the same number"
        )
    return Source(path, model_name, model_config, jax.tree.map(np.asarray, params), tokenizer)


def starting_from(source: Source, preset: RunConfig, given: dict[str, Any]) -> RunConfig:
    """Returns a new run's configuration: the source's model, trained as preset and flags say.

    Raises:
        InputError: a flag contradicts the weights.
    """
    fixed = {"tokenizer": source.tokenizer.kind} | {
        field.name: getattr(source.model_config, field.name)
        for field in dataclasses.fields(GPTConfig)
        if field.name not in FREE
    }
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise InputError(
                f"{as_flag(name)} {given[name]} contradicts the weights in {source.path}, which "
                f"have {value}: leave the flag out, or leave out --init-from"
            )
    block_size = given.get("block_size", source.model_config.block_size)
    if block_size > source.model_config.block_size:
        raise InputError(
            f"--block-size {block_size} is more than the {source.model_config.block_size} "
            f"positions of the weights in {source.path}: give at most that"
        )
    model = {
        "model_name": source.model_name,
        "block_size": source.model_config.block_size,
        "embd_dropout": source.model_config.embd_dropout,
    }
    return changed(preset, model | fixed | given)


def first_state(source: Source, run_config: RunConfig, mesh: Mesh | None) -> TrainState:
    """Returns the state before the first update: the source's weights, in their form on disk.

    Args:
        mesh: the devices that the state is divided over; None means one device.
    """
    model = runs.make_model(run_config.replace(block_size=source.model_config.block_size))
    _, params = with_block_size(model, source.params, run_config.model.block_size)
    abstract = jax.eval_shape(lambda tree: state_of(tree, run_config), params)
    where = None if mesh is None else jax.tree.map(lambda x: x.sharding, target(mesh, abstract))
    return jax.jit(lambda tree: state_of(tree, run_config), out_shardings=where)(params)
