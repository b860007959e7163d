"""Compares the same GPT written four ways: checks that the four agree, and measures them.

python -m compare                          everything, under 12 minutes on 2 cores; writes docs/
python -m compare --quick                  a small model and few repetitions, under 2 minutes
python -m compare --only linen,nnx         only some of the contestants
"""

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import jax

from compare import contestants
from compare.contestants import CONTESTANTS
from compare.measuring import experiment
from compare.report import page, pictures
from gptjax.app.flags import FlagParser
from gptjax.app.script import run_script
from gptjax.errors import InputError, RunError
from gptjax.files import write_json, write_whole
from gptjax.version import __version__

PRESET, QUICK_PRESET = "shakespeare-cpu", "notebook"
QUICK_LAYERS = 1  # a quick run mostly compiles, and compile time grows with the layers
# The contestants of a quick run, unless --only names others.
QUICK = ("linen", "nnx", "plain", "torch")
DOCS, ELSEWHERE = Path("docs"), Path("runs/comparison")
# In a quick run, the proofs and the short programs are compiled without optimization, which halves
# its time. The processes that are measured are compiled as usual.
UNOPTIMIZED = "--xla_backend_optimization_level=0"
if jax.__version__.startswith("0.10."):  # compiles faster; later releases reject this flag
    UNOPTIMIZED += " --xla_cpu_use_fusion_emitters=false"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 failed or not equal, 2 wrong input, 130 Ctrl-C."""
    return run_script("python -m compare", run, argv)


def run(argv: list[str]) -> int:
    """The command's body. `run_script` turns the errors it raises into one line."""
    # 1. Read the flags.
    flags = parse(argv)
    begun, quick = time.perf_counter(), flags.get("quick", False)
    out = Path(flags["out"]) if "out" in flags else (ELSEWHERE if argv else DOCS)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give the path of a folder")
    if flags.get("redraw"):
        write(out, read(out / page.JSON))
        return 0
    names, missing = choose(flags.get("only", ",".join(QUICK if quick else CONTESTANTS)))
    for line in missing:
        print(line)
    preset = flags.get("preset", QUICK_PRESET if quick else PRESET)
    run_config = experiment.configure(preset)
    if quick:
        run_config = run_config.replace(n_layer=min(run_config.model.n_layer, QUICK_LAYERS))
    # 2. Make this process compute like the contestants' processes.
    if jax.config.jax_platforms is None:  # type: ignore[attr-defined]
        jax.config.update("jax_platforms", "cpu")
    run_config, x, y = experiment.load_batches(run_config)
    if quick and "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {UNOPTIMIZED}".strip()
    # 3. Measure everything, then write the results.
    results = experiment.compare(names, run_config, x, y, quick)
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
        raise RunError(f"not equal to Linen within the tolerances: {', '.join(different)}")
    return 0


def parse(argv: list[str]) -> dict[str, Any]:
    """Parses the flags: values by name, without the flags that were not given."""
    parser = FlagParser("python -m compare", __doc__ or "")
    parser.add("preset", str, f"the model and its training [{PRESET}; {QUICK_PRESET} with --quick]")
    parser.add("only", str, f"joined by commas, from {','.join(CONTESTANTS)} [all of them]")
    parser.add("out", Path, f"folder of the results [{DOCS}; {ELSEWHERE} with any flag]")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_LAYERS} layer, few repetitions, {', '.join(QUICK)}",
    )
    parser.add_argument(
        "--redraw",
        action="store_true",
        help=f"only write page and pictures again, from {page.JSON} in --out",
    )
    return parser.parse(argv)


def choose(text: str) -> tuple[list[str], list[str]]:
    """Returns the contestants that take part, and a line for each one that cannot.

    Raises:
        InputError: a name is unknown, or no contestant is left.
    """
    asked = [name.strip() for name in text.split(",") if name.strip()]
    for name in asked:
        if name not in CONTESTANTS:
            raise InputError(f"--only {name!r} must be one of {', '.join(CONTESTANTS)}")
    names, missing = [], []
    for name in CONTESTANTS:
        if name not in asked:
            continue
        if line := contestants.missing(name):
            missing.append(line)
        else:
            names.append(name)
    if not names:
        raise InputError(f"--only {text!r} leaves no contestant. {' '.join(missing)}".rstrip())
    return names, missing


def read(path: Path) -> dict[str, Any]:
    """Reads stored results.

    Raises:
        InputError: the file does not exist.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: run python -m compare --out {path.parent} first")
    return json.loads(path.read_text())


def write(out: Path, results: dict[str, Any]) -> None:
    """Writes the page, its pictures, and the numbers from which both are made.

    If the folder contains results of another release, `page.OTHER_JSON`, the page shows them too.
    """
    out.mkdir(parents=True, exist_ok=True)
    other = read(out / page.OTHER_JSON) if (out / page.OTHER_JSON).is_file() else None
    write_json(out / page.JSON, results)
    pictures.draw_measures(out / page.MEASURED, results)
    pictures.draw_losses(out / page.LOSSES, results)
    write_whole(out / page.PAGE, page.page(results, other))
    for name in (page.PAGE, page.MEASURED, page.LOSSES, page.JSON):
        print(f"wrote {out / name}")


if __name__ == "__main__":
    sys.exit(main())
