"""Kills one training run repeatedly, and checks that nothing is lost.

python benchmarks/torture.py                       60 kills, about ten minutes on 2 cores
python benchmarks/torture.py --kills 5 --steps 1500
python benchmarks/torture.py --processes 2 --kills 10 --steps 1000

The last command signals one of two processes; see torture_peers.py.

A small run is trained twice: once undisturbed, and once in processes that get SIGKILL at a random
moment after two saves, and are then started again with --resume. Saves are so frequent that many
kills happen during a save. After each kill, every checkpoint is verified. At the end, the
parameters, the optimizer's state and metrics.jsonl must equal the undisturbed run's.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

import jax  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.torture_peers import Lives, survive  # noqa: E402
from gptjax.store import checkpoint, listing, manifest, runs  # noqa: E402
from gptjax.training import TrainState, init_state, make_keys  # noqa: E402

MODEL = (
    "--n-layer 1 --n-head 2 --n-embd 32 --block-size 16 --batch-size 8 --dropout 0.1 "
    "--eval-interval 1000000 --eval-iters 20 --log-interval 1"
).split()
OFTEN = ["--save-interval-minutes", "0.003"]
TEXT = "".join(f"{n} times {n + 1} is {n * (n + 1)}, said the {n}th fox.\n" for n in range(900))


def main() -> int:
    """Returns exit status 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=0.8, help="seconds from a save to a kill")
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    args = parser.parse_args()
    if args.processes > 1:
        return torture_peers(args)
    moments, began = random.Random(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        text, killed, whole = (Path(folder, name) for name in ("text.txt", "killed", "whole"))
        # Use JAX's compilation cache, so that the processes spend their time on training.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder, "cache"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        text.write_text(TEXT)
        first = [*MODEL, "--data", str(text), "--max-iters", str(args.steps)]
        subprocess.run(command(whole, *first), check=True, stdout=subprocess.DEVNULL)
        print(f"undisturbed: {args.steps} steps, {time.monotonic() - began:.0f} s", flush=True)
        hit: list[int] = []
        under_way = lost = 0
        for kill in range(args.kills):
            before = newest(killed)
            process = subprocess.Popen(
                command(killed, *(["--resume"] if runs.is_run(killed) else first), *OFTEN),
                stdout=subprocess.DEVNULL,
            )
            seen = {before}  # the first save comes as soon as the program is compiled
            while len(seen) < 3 and process.poll() is None:
                time.sleep(0.005)
                seen.add(newest(killed))
            time.sleep(moments.uniform(0, args.longest))
            if process.poll() is not None:
                print(f"it ended by itself after {kill} kills: give more --steps")
                return 2
            there = newest(killed)
            process.send_signal(signal.SIGKILL)
            process.wait()
            half_done = [p.name for p in (killed / runs.CHECKPOINTS).glob("tmp-*")]
            under_way += bool(half_done)
            saving = max((int(n.split("-")[1].split(".")[0]) for n in half_done), default=0)
            hit.append(max(last_step(killed), newest(killed), saving))
            lost += damaged(killed) + (newest(killed) < there)
            print(f"kill {kill + 1}: at step {hit[-1]}, newest checkpoint {newest(killed)}")
            sys.stdout.flush()
        subprocess.run(command(killed, "--resume"), check=True, stdout=subprocess.DEVNULL)
        same = all(
            np.array_equal(a, b)
            for a, b in zip(*(jax.tree.leaves(final(p)) for p in (killed, whole)), strict=True)
        )
        same_metrics = metrics(killed) == metrics(whole)
    print(
        f"{args.kills} kills at {len(set(hit))} different steps, {under_way} with a save under way"
    )
    print(f"checkpoints lost or damaged, beyond the one in flight: {lost}")
    print(f"final state equal bit for bit: {same}; metrics.jsonl the same: {same_metrics}")
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if same and same_metrics and not lost else 1


def torture_peers(args: argparse.Namespace) -> int:
    """The same with several processes, one of which is signalled. Exit status 0 if all is well."""
    began, lives = time.monotonic(), Lives(args.processes, args.seed)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        text, killed, whole = (Path(folder, name) for name in ("text.txt", "killed", "whole"))
        text.write_text(TEXT)
        first = [*MODEL, "--data", str(text), "--max-iters", str(args.steps)]

        def start_of(path: Path, is_killed: bool) -> list[str]:
            flags = ["--resume"] if runs.is_run(path) else first
            return command(path, *flags, *(OFTEN if is_killed else []))

        folders = (killed, whole)
        lost = survive(args.kills, lives, start_of, folders, args.longest, newest, damaged)
        leaves = (jax.tree.leaves(final(path).params) for path in folders)
        difference = max(float(np.abs(a - b).max()) for a, b in zip(*leaves, strict=True))
        steps = [line["step"] for line in metrics(killed)]
    print(f"{args.kills} signals: {', '.join(f'{n} x {x}' for x, n in lives.given.items())}")
    print(f"{lives.unjoined} came before the processes had joined")
    print(f"after the others, all ended within {lives.slowest:.0f} s")
    print(f"wrong: {lives.wrong or 'nothing'}; checkpoints lost or damaged: {lost}")
    in_order = steps == sorted(set(steps)) and steps[-1] == args.steps
    print(f"metrics.jsonl has each step once, in order: {in_order}")
    print(f"largest difference of a parameter from the undisturbed run's: {difference:.1e}")
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if not lost and not lives.wrong and in_order and difference < 1e-3 else 1


def command(path: Path, *flags: str) -> list[str]:
    """The command of the real script."""
    return [sys.executable, str(ROOT / "train.py"), "--out-dir", str(path), *flags]


def newest(path: Path) -> int:
    """Returns the newest checkpoint's step, from its name; 0 without a checkpoint."""
    folder = path / runs.CHECKPOINTS
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def damaged(path: Path) -> int:
    """The number of checkpoints that are not whole."""
    found, problems = listing.list_checkpoints(path / runs.CHECKPOINTS)
    for one in found:
        try:
            manifest.verify(one.path)
        except manifest.DamagedError as error:
            problems.append(str(error))
    for problem in problems:
        print(problem)
    return len(problems)


def last_step(path: Path) -> int:
    """The last step in the metrics of the killed process."""
    return json.loads((path / runs.METRICS).read_text().splitlines()[-1])["step"]


def metrics(path: Path) -> list[dict[str, float]]:
    """The metrics' lines without the values that differ between runs, such as times."""
    lines = [json.loads(line) for line in (path / runs.METRICS).read_text().splitlines()]
    times = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def final(path: Path) -> TrainState:
    """The last checkpoint's whole state."""
    run_config, _ = runs.read_run(path)
    model = runs.make_model(run_config)
    abstract = jax.eval_shape(lambda k: init_state(model, run_config, k), make_keys(0).params)
    at = path / runs.CHECKPOINTS / str(run_config.train.max_iters)
    return checkpoint.load_state(at, abstract)


if __name__ == "__main__":
    sys.exit(main())
