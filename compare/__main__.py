"""Compares the GPT written four ways: proves them equal, measures them, tries what is easy.

python -m compare                          all of it, under 10 minutes on 2 cores; writes docs/
python -m compare --quick                  a small model and few repetitions, under 2 minutes
python -m compare --only linen,torch       this project against PyTorch alone
"""

import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from compare import contestants, ease, equality, measure, page, pictures, weights
from compare.contestants import CONTESTANTS
from compare.figures import MEASURES, order, show_order, show_spread, spreads, title
from compare.machine import machine
from gptjax import data
from gptjax.app.flags import FlagParser
from gptjax.app.script import run_script
from gptjax.config import RunConfig
from gptjax.errors import InputError, RunError
from gptjax.files import write_json, write_whole
from gptjax.model import num_params
from gptjax.presets import PRESETS, preset_for
from gptjax.text.corpora import load_text
from gptjax.tokenizer import CharTokenizer
from gptjax.version import __version__

PRESET, QUICK_PRESET = "shakespeare-cpu", "notebook"
QUICK_LAYERS, QUICK_REPEATS = 2, 2  # a quick run is compiles for the most part, layer by layer
DATA_DIR, DOCS, ELSEWHERE = Path("data"), Path("docs"), Path("runs/comparison")
# Half of a quick run would be LLVM at work on programs that run for a moment. It is for the proofs
# and the short programs alone, not for the processes that are measured.
UNOPTIMIZED = "--xla_backend_optimization_level=0"
if jax.__version__.startswith("0.10."):  # a newer, slower way to compile; later ones abort at this
    UNOPTIMIZED += " --xla_cpu_use_fusion_emitters=false"
BEGUN = time.perf_counter()
BATCHES = 20  # that the contestants go through again and again


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed or not equal, 2 wrong input, 130 Ctrl-C."""
    return run_script("python -m compare", run, argv)


def run(argv: list[str]) -> int:
    """The body; raises what `run_script` turns into a line."""
    flags = parse(argv)
    begun, quick = time.perf_counter(), flags.get("quick", False)
    names, missing = choose(flags.get("only", ",".join(CONTESTANTS)), quick)
    preset = flags.get("preset", QUICK_PRESET if quick else PRESET)
    config = configure(preset)
    if quick:
        config = config.replace(n_layer=min(config.model.n_layer, QUICK_LAYERS))
    out = Path(flags["out"]) if "out" in flags else (ELSEWHERE if argv else DOCS)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give the path of a folder")
    for line in missing:
        print(line)
    if jax.config.jax_platforms is None:  # type: ignore[attr-defined]
        jax.config.update("jax_platforms", "cpu")  # as the contestants' own processes have it
    config, x, y = load_batches(config)
    if quick and "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {UNOPTIMIZED}".strip()
    results = compare(names, config, x, y, quick)
    results |= {
        "version": __version__,
        "command": shlex.join(["python", "-m", "compare", *argv]),
        "preset": preset,
        "missing": missing,
        "minutes": (time.perf_counter() - begun) / 60,
    }
    write(out, results)
    print(f"{results['minutes']:.1f} minutes")
    different = [n for n, proof in results["equality"].items() if not proof.get("agrees", True)]
    if different:
        raise RunError(f"not equal to this project within the tolerances: {', '.join(different)}")
    return 0


def parse(argv: list[str]) -> dict[str, Any]:
    """Flags to values; absent when not given."""
    parser = FlagParser("python -m compare", __doc__ or "")
    parser.add("preset", str, f"the model and its training [{PRESET}; {QUICK_PRESET} with --quick]")
    parser.add("only", str, f"comma-separated, of {','.join(CONTESTANTS)}; linen is always there")
    parser.add("out", Path, f"folder of the results [{DOCS}; with any flag {ELSEWHERE}]")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_LAYERS} layers, few repetitions, no torch.compile",
    )
    return parser.parse(argv)


def choose(text: str, quick: bool) -> tuple[list[str], list[str]]:
    """The contestants that take part, and a line for each that is left out.

    Raises:
        InputError: a name is unknown.
    """
    asked = [name.strip() for name in text.split(",") if name.strip()]
    for name in asked:
        if name not in CONTESTANTS:
            raise InputError(f"--only {name!r} must be one of {', '.join(CONTESTANTS)}")
    names, missing = [], []
    for name in CONTESTANTS:
        if name != equality.REFERENCE and name not in asked:
            continue
        if line := contestants.missing(name):
            missing.append(line)
        elif quick and name in measure.STARTS_ONCE:
            missing.append(f"{title(name)} is left out: its compile is too slow for --quick")
        else:
            names.append(name)
    return names, missing


def configure(preset: str) -> RunConfig:
    """The preset as it suits a CPU.

    Raises:
        InputError: there is no such preset, or its model is none of the GPT's.
    """
    config = preset_for("cpu", preset).replace(optimizer="adamw")  # which all of them have
    if config.model_name != "gpt":
        able = ", ".join(name for name, one in PRESETS.items() if one.model_name == "gpt")
        raise InputError(f"preset {preset!r} is no GPT: the contestants can be {able}")
    return config


def load_batches(config: RunConfig) -> tuple[RunConfig, np.ndarray, np.ndarray]:
    """The configuration with the text's vocabulary, and batches (N, B, T) of the text."""
    text = load_text("shakespeare", DATA_DIR, tell=print)
    tokenizer = CharTokenizer.from_text(text.text)
    tokens, _ = data.split(np.asarray(tokenizer.encode(text.text)))
    config = config.replace(vocab_size=tokenizer.vocab_size)
    rng = np.random.default_rng(config.seed)
    starts = rng.integers(
        0, len(tokens) - config.model.block_size, (BATCHES, config.train.batch_size)
    )
    windows = tokens[starts[..., None] + np.arange(config.model.block_size + 1)].astype(np.int32)
    return config, np.ascontiguousarray(windows[..., :-1]), np.ascontiguousarray(windows[..., 1:])


def compare(
    names: list[str], config: RunConfig, x: np.ndarray, y: np.ndarray, quick: bool
) -> dict[str, Any]:
    """Proofs, measurements and programs, told as they come."""
    amounts = measure.QUICK if quick else measure.Amounts()
    params = weights.shared_params(config)
    print("are they equal?")
    proofs = equality.prove(names, config, x, y, tell)
    for name, proof in proofs.items():
        if "agrees" in proof:
            print(f"  {title(name)}: {'equal' if proof['agrees'] else 'NOT equal'}")
    print("how fast are they?")
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        measure.prepare(Path(folder), config, params, x, y)
        measured, processes = measure.run(names, Path(folder), config, amounts, tell)
    for key in MEASURES:
        found = spreads(measured, key)
        shown = "; ".join(f"{title(name)} {show_spread(one)}" for name, one in found.items())
        print(f"  {MEASURES[key].title} ({MEASURES[key].unit}): {shown}")
        print(f"    {show_order(order(found, MEASURES[key].more_is_better))}")
    print("what is easy?")
    designs = [design for design in ease.DESIGNS if design in names]
    problem, programs = ease.small_problem(QUICK_REPEATS if quick else ease.REPEATS), {}
    for topic in ease.TOPICS:
        programs[topic] = found = ease.run(topic, designs, problem)
        tell(found["question"])
        for design, one in found["designs"].items():
            print(f"    {title(design)}, {one['lines']} lines: {one['says']}")
    model = config.model
    return {
        "machine": machine(),
        "config": {name: getattr(model, name) for name in model.__dataclass_fields__},
        "parameters": num_params(params),
        "batch": [x.shape[1], x.shape[2]],
        "proof_rate": min(config.train.learning_rate, equality.LEARNING_RATE),
        "amounts": amounts._asdict(),
        "sample": list(measure.sample_lengths(config)),
        "processes": processes,
        "equality": proofs,
        "measures": measured,
        "ease": programs,
    }


def tell(line: str) -> None:
    """Progress, on its own line, with the seconds since the program started."""
    print(f"  {time.perf_counter() - BEGUN:3.0f} s  {line}", flush=True)


def write(out: Path, results: dict[str, Any]) -> None:
    """The page, its pictures and the numbers that both are made of."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / page.JSON, results)
    pictures.draw_measures(out / page.MEASURED, results)
    pictures.draw_losses(out / page.LOSSES, results)
    write_whole(out / page.PAGE, page.page(results))
    for name in (page.PAGE, page.MEASURED, page.LOSSES, page.JSON):
        print(f"wrote {out / name}")


if __name__ == "__main__":
    sys.exit(main())
