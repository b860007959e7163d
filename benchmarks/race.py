"""A race for the loss: nanoGPT's laptop recipe in PyTorch, and `shakespeare-cpu` in the same time.

python benchmarks/race.py            8 to 10 minutes on 2 cores
python benchmarks/race.py --quick    a few steps, only to check that it works

The twin trains 2,000 steps of 12 x 64. This project then gets the same time, from the start of the
process to the end of the last update, including imports and compilation. A short run finds out how
many steps fit. If the machine became slower or faster, so that a run took too long or too short, it
is repeated with the steps that its own speed allows. Losses are over the whole validation split,
and are not used for any choice. The settings of `shakespeare-cpu` were chosen on that split, but
with other seeds. Writes docs/race.json and prints the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

PROBE = 60  # steps of the short run; its last half is timed
SAFE = 0.97  # share of the steps that fit, because a step may take longer than in the short run
USED = 0.93  # the least share of the time to use; otherwise the run is repeated
ATTEMPTS = 4
FIRST_SEED = 9101


def main() -> int:
    """Returns exit status 0, whoever wins."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000, help="of the twin")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--contestant", choices=["gptjax", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        # A contestant's process imports only what it needs, because imports count as its time.
        print(json.dumps((ours if args.contestant == "gptjax" else theirs)(args.folder)))
        return 0
    if not find_spec("torch"):
        print("nobody to race: pip install -e '.[compare]'", file=sys.stderr)
        return 0
    from compare.measuring.machine import versions
    from gptjax.files import write_json

    steps, probe, seeds = (6, 4, 1) if args.quick else (args.steps, PROBE, args.seeds)
    attempts = 1 if args.quick else ATTEMPTS
    rows: list[dict[str, Any]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        twin = run("torch", steps, seed)
        *tried, mine = fitted(twin["seconds"], probe, seed, attempts)
        rows.append({"seed": seed, "torch": twin, "gptjax": mine, "tried": tried})
        print(table(rows[-1:]), file=sys.stderr, flush=True)
    print(table(rows))
    if not args.quick:
        write_json(args.out / "race.json", {"versions": versions(), "rows": rows})
    return 0


def fitted(seconds: float, probe: int, seed: int, attempts: int) -> list[dict[str, Any]]:
    """Returns the short run, the runs that missed the time, and the run that counts."""
    tried = [run("gptjax", probe, seed)]
    for _ in range(attempts):
        last = tried[-1]
        fit = int(SAFE * (seconds - last["start"]) / last["step"])
        tried.append(run("gptjax", max(2, fit), seed))
        if USED * seconds <= tried[-1]["seconds"] <= seconds:
            break
    return tried


def run(contestant: str, steps: int, seed: int) -> dict[str, Any]:
    """Returns a contestant's loss, and its seconds from the start of its process."""
    from gptjax.backends.execution import with_micro_batches
    from gptjax.files import write_json
    from gptjax.presets import PRESETS, preset_for
    from gptjax.text.splitting import read_texts, with_text

    if contestant == "torch":
        run_config = PRESETS["shakespeare"].replace(
            n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=12, dropout=0.0
        )
    else:
        run_config = with_micro_batches(preset_for("cpu"), "cpu")
    run_config = run_config.replace(max_iters=steps, seed=seed, dtype="float32")
    texts = read_texts(run_config, ROOT / "data", lambda line: None)
    with tempfile.TemporaryDirectory(prefix="gptjax-race-") as folder:
        write_json(Path(folder) / "config.json", with_text(run_config, texts).to_dict())
        np.savez(Path(folder) / "text.npz", train=texts.train, val=texts.val)
        began = time.time()
        done = subprocess.run(
            [sys.executable, __file__, "--contestant", contestant, "--folder", folder],
            env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    said = json.loads(done.stdout.splitlines()[-1])
    seconds = said["ended"] - began
    start = seconds - steps * said["step"]
    return {"steps": steps, "seconds": seconds, "start": start, **said}


def ours(folder: Path) -> dict[str, float]:
    """Trains `shakespeare-cpu` as train.py does, in two dispatches."""
    from functools import partial

    import jax

    from gptjax.app.compiling import compile_and_initialize
    from gptjax.backends.execution import suited
    from gptjax.config import RunConfig
    from gptjax.model import GPT
    from gptjax.training import evaluate, init_state, make_keys, make_train_loop

    run_config = RunConfig.from_dict(json.loads((folder / "config.json").read_text()))
    with np.load(folder / "text.npz") as text:
        train, val = (jax.numpy.asarray(text[name]) for name in ("train", "val"))
    model = suited(GPT(run_config.model), run_config, "cpu")
    keys, steps = make_keys(run_config.seed), run_config.train.max_iters
    loop = make_train_loop(model, run_config)
    state = compile_and_initialize(partial(init_state, model, run_config), loop, train, keys)
    times = []
    for until in (steps // 2, steps):
        state, metrics = loop(state, train, keys, until)
        metrics.last.loss.item()
        times.append(time.time())
    step = (times[1] - times[0]) / (steps - steps // 2)
    return {"ended": times[1], "step": step, "val_loss": evaluate(model, state.params, val)}


def theirs(folder: Path) -> dict[str, float]:
    """Trains nanoGPT's laptop recipe with the PyTorch twin, in float32, the fastest dtype here."""
    import torch

    from compare import torch_gpt
    from compare.measuring.worker import read_config

    run_config = read_config("torch", folder / "config.json")
    with np.load(folder / "text.npz") as text:
        train, val = (torch.from_numpy(text[name].astype("int64")) for name in ("train", "val"))
    training = torch_gpt.make(run_config, run_config.seed)
    B, T = run_config.train.batch_size, run_config.model.block_size
    steps = run_config.train.max_iters
    began = time.time()
    for _ in range(steps):
        at = torch.randint(len(train) - T, (B,)).tolist()
        x, y = (torch.stack([train[i + d : i + d + T] for i in at]) for d in (0, 1))
        torch_gpt.train_step(*training, x, y, grad_clip=run_config.train.grad_clip)
    ended = time.time()
    model, total = training[0].eval(), 0.0
    with torch.inference_mode():
        for i in range(0, len(val) - 1, T):
            y = val[i + 1 : i + 1 + T]
            logits = torch_gpt.forward(model, val[None, i : i + len(y)])[0]
            total += torch.nn.functional.cross_entropy(logits, y, reduction="sum").item()
    return {"ended": ended, "step": (ended - began) / steps, "val_loss": total / (len(val) - 1)}


def table(rows: list[dict[str, Any]]) -> str:
    """Both sides for each seed, and the mean difference."""
    lines = [
        "| seed | the twin: steps | seconds | loss | shakespeare-cpu: steps | seconds "
        "| to its first step | loss | lower by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        twin, mine = row["torch"], row["gptjax"]
        lines.append(
            f"| {row['seed']} | {twin['steps']:,} | {twin['seconds']:.1f} | {twin['val_loss']:.4f} "
            f"| {mine['steps']:,} | {mine['seconds']:.1f} | {mine['start']:.1f} "
            f"| {mine['val_loss']:.4f} | {twin['val_loss'] - mine['val_loss']:.4f} |"
        )
    mean = statistics.mean(row["torch"]["val_loss"] - row["gptjax"]["val_loss"] for row in rows)
    return "\n".join([*lines, "", f"Lower by {mean:.4f} on average."])


if __name__ == "__main__":
    sys.exit(main())
