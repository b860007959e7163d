"""Trains every rung of the lecture's ladder with several seeds, and compares the losses.

python -m gptjax.lecture                    all rungs, 5 seeds; runs/lecture/ladder.{md,png,json}
python -m gptjax.lecture --rungs bigram,head --seeds 2 --out /tmp/ladder
python -m gptjax.lecture --pictures --run runs/notebook     attention and positions of a run

After an interruption, the same command continues with the unfinished rung.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gptjax import data
from gptjax.app.flags import FlagParser
from gptjax.app.report import duration, make_console, only_shown
from gptjax.app.script import run_script, warner
from gptjax.backends.devices import describe
from gptjax.config import check_seed
from gptjax.errors import ConfigError, InputError
from gptjax.inference.generation import generate
from gptjax.lecture import pictures, results
from gptjax.lecture.ladder import BESIDE, LADDER, Climbed, choose, climb, rung_config
from gptjax.store import runs
from gptjax.text.corpora import Text, load_text
from gptjax.tokenizer import CharTokenizer

DEFAULTS: dict[str, Any] = {"seeds": 5, "out": "runs/lecture", "data": "shakespeare"}
DATA_DIR = Path("data")
PLAIN_WIDTH = 160  # of the table in a file or a pipe, so that no line is wrapped
FIRST_SEED = 1337  # the lecture's seed, and train.py's default


def main(argv: list[str] | None = None, *, command: str = "python -m gptjax.lecture") -> int:
    """Trains the lecture's models, or draws its pictures, as the flags say.

    Args:
        argv: the flags; None means the process's arguments.
        command: what the user typed, for help and errors.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C.
    """
    return run_script(command, partial(run, command=command), argv, is_shown=True)


def run(argv: list[str], command: str) -> int:
    """The command's body. `run_script` turns the errors it raises into one line."""
    flags = DEFAULTS | parse(argv, command)
    out = Path(flags["out"])
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give the path of a folder")
    if flags.get("pictures"):
        return draw_pictures(out, flags)
    if "run" in flags:
        raise InputError("--run names the model of the pictures: add --pictures")
    if "text" in flags:
        raise InputError("--text is what the model of --run reads: add --pictures and --run")
    if flags["seeds"] < 1:
        raise ConfigError("seeds", flags["seeds"], "must be at least 1")
    check_seed(FIRST_SEED + flags["seeds"] - 1)
    chosen = choose(flags.get("rungs", ",".join(LADDER)))
    for name in chosen:
        rung_config(name, vocab_size=1, max_iters=flags.get("max_iters"))
    return climb_all(out, chosen, flags, warner(command))


def parse(argv: list[str], command: str) -> dict[str, Any]:
    """Parses the flags: values by name, without the flags that were not given."""
    parser = FlagParser(command, (__doc__ or "").replace("python -m gptjax.lecture", command))
    parser.add("seeds", int, "seeds for each rung, trained together", DEFAULTS["seeds"])
    parser.add(
        "rungs", str, f"joined by commas, from {','.join(LADDER)} [these] and {','.join(BESIDE)}"
    )
    parser.add("out", Path, "folder of the results", DEFAULTS["out"])
    parser.add("data", Path, "`shakespeare` or the path of a UTF-8 text", DEFAULTS["data"])
    parser.add("max_iters", int, "updates of every rung [the preset's]")
    parser.add("pictures", bool, "draw pictures and train nothing")
    parser.add("run", Path, "with --pictures: a run whose attention and positions are drawn too")
    parser.add("text", str, "with --run: the text its heads read [a line that the model writes]")
    return parser.parse(argv)


def climb_all(
    out: Path, chosen: list[str], flags: dict[str, Any], warn: Callable[[str], None]
) -> int:
    """Trains the chosen rungs, and saves each as soon as it is finished."""
    console = make_console(sys.stdout)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    text = load_text(flags["data"], DATA_DIR, tell=console.print)
    seeds = [FIRST_SEED + i for i in range(flags["seeds"])]
    of = results.Climb(text.source, text.sha256, seeds, flags.get("max_iters"))
    out.mkdir(parents=True, exist_ok=True)
    before = {rung.name: rung for rung in results.load_unfinished(out, of)}
    console.print(f"{describe()}; {len(chosen)} rungs, {len(seeds)} seeds at once")
    kept: list[Climbed] = list(before.values())
    for name in chosen:
        if name in before:
            console.print(f"{name}: done before the interruption")
            continue
        rung = _climb_one(console, name, text, seeds, flags.get("max_iters"))
        kept.append(rung)
        results.save_unfinished(out, of, kept)
        console.print(
            f"{name}: {results.spread(rung.losses)} in {duration(rung.seconds)}"
            + (f"; the lecture {rung.lecture:.2f}" if rung.lecture else ""),
            soft_wrap=True,
        )
    done = [rung for name in chosen for rung in kept if rung.name == name]
    results.write_results(out, of, done)
    with only_shown("the picture", warn):
        results.draw(out / results.PICTURE, done)
    console.print(_table(done))
    for name in (results.PAGE, results.PICTURE, results.JSON):
        console.print(f"wrote {out / name}", soft_wrap=True)
    return 0


def _climb_one(
    console: Console, name: str, text: Text, seeds: list[int], max_iters: int | None
) -> Climbed:
    tokenizer = CharTokenizer.from_text(text.text)
    run_config = rung_config(name, tokenizer.vocab_size, max_iters)
    tokens = data.compact(tokenizer.encode(text.text), tokenizer.vocab_size)
    train_tokens, val_tokens = data.split(tokens)
    data.check_lengths(train_tokens, val_tokens, run_config.model.block_size)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(name, total=run_config.train.max_iters)
        return climb(
            name,
            run_config,
            train_tokens,
            val_tokens,
            seeds,
            tokenizer,
            lambda step: bar.update(task, completed=step),
        )


def _table(done: list[Climbed]) -> Table:
    table = Table()
    for column in ("rung", "parameters", "whole split", "200 batches", "lecture", "a line of it"):
        table.add_column(column)
    for rung in done:
        table.add_row(
            rung.name,
            f"{rung.parameters:,}",
            results.spread(rung.losses),
            results.spread(rung.estimates),
            results.figure(rung.lecture),
            results.sample_line(rung.sample),
        )
    return table


def draw_pictures(out: Path, flags: dict[str, Any]) -> int:
    """Draws averages and sinusoids and, with --run, the attention of a trained model."""
    if "text" in flags and "run" not in flags:
        raise InputError("--text is what the model of --run reads: add --run")
    loaded = runs.load_run(Path(flags["run"])) if "run" in flags else None
    ids = None if loaded is None else ids_to_read(loaded, flags.get("text"))
    out.mkdir(parents=True, exist_ok=True)
    drawn = [
        pictures.draw_averaging(out / "averaging.png"),
        pictures.draw_sinusoids(out / "sinusoids.png"),
    ]
    if loaded is not None and ids is not None:
        labels = [loaded.tokenizer.decode([i]) for i in ids]
        attention = pictures.draw_attention(
            out / "attention.png", loaded.model, loaded.params, ids, labels
        )
        table_TC = np.asarray(loaded.params["wpe"]["embedding"])
        drawn += [attention, pictures.draw_positions(out / "positions.png", table_TC)]
    for path in drawn:
        sys.stdout.write(f"wrote {path}\n")
    return 0


def ids_to_read(loaded: runs.Run, text: str | None) -> np.ndarray:
    """The tokens for which a model's attention is drawn: (T,) ids, at most block_size.

    Without a text, the model generates a line itself, which works with every vocabulary.

    Raises:
        InputError: the text is empty, longer than block_size, or has an unknown character.
    """
    pictures.check_has_attention(loaded.model, loaded.params)
    block_size = loaded.config.model.block_size
    if text is None:
        start = np.full((1, 1), loaded.tokenizer.start_id, np.int32)
        n = min(pictures.TOKENS, block_size)
        ids = generate(
            loaded.model, loaded.params, start, jax.random.key(FIRST_SEED), max_new_tokens=n
        )
        return np.asarray(ids)[0, 1:]
    ids = loaded.tokenizer.encode(text)
    if not 0 < len(ids) <= block_size:
        raise InputError(
            f"--text has {len(ids)} tokens: it must have 1 to {block_size}, the run's block_size"
        )
    return ids


if __name__ == "__main__":
    sys.exit(main())
