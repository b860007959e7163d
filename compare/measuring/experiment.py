"""Runs the whole comparison (proofs, measurements and short programs), and prints progress."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from compare import ease, weights
from compare.figures import MEASURES, order, show_order, show_spread, spreads, title
from compare.measuring import equality, measurement
from compare.measuring.machine import machine
from gptjax import data
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.model import num_params
from gptjax.presets import PRESETS, preset_for
from gptjax.text.corpora import load_text
from gptjax.tokenizer import CharTokenizer

DATA_DIR = Path("data")
BEGUN = time.perf_counter()
BATCHES = 20  # the contestants train on these batches repeatedly
QUICK_REPEATS = 2


def configure(preset: str) -> RunConfig:
    """Returns the preset for a CPU with AdamW, the only optimizer that all contestants have.

    Raises:
        InputError: the preset does not exist, or its model is not a GPT.
    """
    run_config = preset_for("cpu", preset).replace(optimizer="adamw")
    if run_config.model_name != "gpt":
        able = ", ".join(name for name, one in PRESETS.items() if one.model_name == "gpt")
        raise InputError(f"preset {preset!r} is not a GPT; these presets are: {able}")
    return run_config


def load_batches(run_config: RunConfig) -> tuple[RunConfig, np.ndarray, np.ndarray]:
    """Returns the configuration with the text's vocabulary size, and batches (N, B, T)."""
    text = load_text("shakespeare", DATA_DIR, tell=say)
    tokenizer = CharTokenizer.from_text(text.text)
    tokens, _ = data.split(np.asarray(tokenizer.encode(text.text)))
    run_config = run_config.replace(vocab_size=tokenizer.vocab_size)
    rng = np.random.default_rng(run_config.seed)
    starts = rng.integers(
        0, len(tokens) - run_config.model.block_size, (BATCHES, run_config.train.batch_size)
    )
    windows = tokens[starts[..., None] + np.arange(run_config.model.block_size + 1)].astype(
        np.int32
    )
    return (
        run_config,
        np.ascontiguousarray(windows[..., :-1]),
        np.ascontiguousarray(windows[..., 1:]),
    )


def compare(
    names: list[str], run_config: RunConfig, x: np.ndarray, y: np.ndarray, quick: bool
) -> dict[str, Any]:
    """Measures the contestants in `names`, and returns all results for the page."""
    amounts = measurement.QUICK if quick else measurement.Amounts()
    params = weights.shared_params(run_config)
    say("are they equal?")
    proofs = equality.prove(names, run_config, x, y, tell)
    for name, proof in proofs.items():
        if "agrees" in proof:
            say(f"  {title(name)}: {'equal' if proof['agrees'] else 'NOT equal'}")
    say("how fast are they?")
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        measurement.prepare(Path(folder), run_config, params, x, y)
        measured = measurement.Measurement(names, Path(folder), run_config, amounts, tell)
        measured.run()
    _say_measured(measured.found)
    say("what is easy?")
    programs = _run_programs(names, quick)
    model_config = run_config.model
    return {
        "machine": machine(),
        "model": {name: getattr(model_config, name) for name in model_config.__dataclass_fields__},
        "parameters": num_params(params),
        "batch": [x.shape[1], x.shape[2]],
        "proof_rate": min(run_config.train.learning_rate, equality.LEARNING_RATE),
        "amounts": amounts._asdict(),
        "sample": list(measurement.sample_lengths(run_config)),
        "processes": measured.about,
        "equality": proofs,
        "measures": measured.found,
        "host": measured.host,
        "programs": measured.programs,
        "injection": ease.injection_lines(),
        "ease": programs,
    }


def _say_measured(found: measurement.Measured) -> None:
    for key, one in MEASURES.items():
        by_name = spreads(found, key)
        shown = "; ".join(f"{title(name)} {show_spread(each)}" for name, each in by_name.items())
        say(f"  {one.title} ({one.unit}): {shown}")
        say(f"    {show_order(order(by_name, one.more_is_better))}")


def _run_programs(names: list[str], quick: bool) -> dict[str, Any]:
    designs = [design for design in ease.DESIGNS if design in names]
    topics = [topic for topic in ease.TOPICS if designs and not (quick and topic in ease.LONG)]
    problem, programs = ease.small_problem(QUICK_REPEATS if quick else ease.REPEATS), {}
    for topic in topics:
        programs[topic] = found = ease.run(topic, designs, problem)
        tell(found["question"])
        for design, one in found["designs"].items():
            say(f"    {title(design)}, {one['lines']} lines: {one['says']}")
    return programs


def say(line: str) -> None:
    """Prints a line and flushes it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(line: str) -> None:
    """Prints progress, with the seconds since the program started."""
    say(f"  {time.perf_counter() - BEGUN:3.0f} s  {line}")
