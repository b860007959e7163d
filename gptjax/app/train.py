"""The story of a training run, from the command line to what to type next.

`run` tells it. What the chapters do is below, in the same order.
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax.app.flags import FlagParser, as_flag
from gptjax.app.loop import Loop, Result, StopRequest
from gptjax.app.report import Report, duration, loss_text
from gptjax.app.script import INSTALLED, Commands, run_script, warner
from gptjax.backends.devices import describe, make_deterministic, platform, use_compilation_cache
from gptjax.backends.execution import describe_attention, suited, with_micro_batches
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.inference.generation import generate
from gptjax.model import num_params
from gptjax.presets import PRESETS, preset_for
from gptjax.store import listing, runs
from gptjax.store.checkpoint import load_state, newest_whole
from gptjax.store.lock import locked
from gptjax.text.splitting import Texts, check_same_text, read_texts, with_text
from gptjax.training import TrainState, evaluate, make_keys

HELP = """Trains a GPT on a text and writes a run that `{sample}` reads.

{train}                                    the preset that suits this machine
{train} --data my.txt --n-layer 4 --n-embd 128
{train} --resume                           go on with the newest run
"""
SAMPLE_TOKENS = 200

# What a resume may change; everything else is the run's.
CHANGEABLE = (
    "max_iters eval_interval log_interval keep max_minutes save_interval_minutes skip_nonfinite "
    "remat"
).split()


def main(
    argv: list[str] | None = None,
    *,
    commands: Commands = INSTALLED,
    data_dir: Path = Path("data"),
) -> int:
    """Trains as the flags say.

    Args:
        argv: the flags; None is the process's own.
        commands: what the user typed, for hints and errors.
        data_dir: where a corpus that is known by name lies, or is fetched to.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C, 143 SIGTERM.
    """
    return run_script(commands.train, partial(run, commands=commands, data_dir=data_dir), argv)


def run(argv: list[str], commands: Commands, data_dir: Path) -> int:
    """A training run; raises what `run_script` turns into a line, and returns the exit status."""
    # 1. What was typed.
    warn = warner(commands.train)
    use_compilation_cache()
    given = parse(argv, commands)
    resume, eval_only = given.pop("resume", False), given.pop("eval_only", False)
    overwrite, out_dir = given.pop("overwrite", False), given.pop("out_dir", None)
    if out_dir == "":
        raise InputError("--out-dir is empty: give the path of a folder")
    if overwrite and (resume or eval_only):
        raise InputError(
            "--overwrite starts from step 0, so it cannot go with --resume or --eval-only"
        )

    # 2. The folder. A new run's is made only once its text is known to be good.
    if resume or eval_only:
        path = Path(out_dir) if out_dir else runs.newest_run()
        runs.read_run(path)  # whether it is one is said before anything is opened in it
        run_config = texts = None
    else:
        run_config = new_config(given)
        path = Path(out_dir) if out_dir else runs.new_folder(run_config.preset)
        runs.check_free(path, overwrite)
        texts = read_texts(run_config, data_dir, say)
        run_config = with_text(run_config, texts)
        path.mkdir(parents=True, exist_ok=True)

    with nullcontext() if eval_only else locked(path, warn):
        # 3. Configuration and text: stored now, or those of the run.
        if run_config is None or texts is None:
            run_config = resumed_config(path, given, eval_only)
            texts = read_texts(run_config, data_dir, say, is_stored="data" not in given)
            check_same_text(path, run_config, texts)
            run_config = with_text(run_config, texts)
        else:
            runs.check_free(path, overwrite)  # another process may have been faster
            if overwrite:
                runs.remove_run(path)
            runs.write_run(path, run_config, texts.tokenizer)
        if eval_only:
            return report_evaluation(path, texts.val, warn)

        # 4. Where it starts: at step 0, or at the newest whole checkpoint.
        say(f"run: {path}")
        state, skipped = restored(path, run_config, warn) if resume else (None, 0)
        if state and is_finished(run_config, int(state.step)):
            return 0
        runs.remove_temporaries(path)
        if resume:
            runs.write_config(path, run_config)

        # 5. Training, and what to type next.
        introduce(run_config, texts)
        result = train_and_show(path, run_config, texts, state, skipped)
    return conclude(path, run_config, result, commands)


def parse(argv: list[str], commands: Commands) -> dict[str, Any]:
    """Flags to values, by field name; absent when not given."""
    # The preset decides what the other flags' defaults are, and so what --help shows: it is read
    # before them, by a parser that knows this flag alone.
    peek = FlagParser(commands.train, "", add_help=False)
    peek.add("preset", str, "")
    name = peek.parse_some(argv).get("preset")
    defaults = PRESETS.get(name or "") or preset_for(platform())
    parser = FlagParser(commands.train, HELP.format(**commands._asdict()))
    parser.add("preset", str, f"settings to start from: {', '.join(PRESETS)}", defaults.preset)
    parser.add("out_dir", str, "folder of the run [runs/<preset>-<date>-<time>]")
    for name, help in {
        "resume": "go on with the run in --out-dir, or with the newest",
        "overwrite": "replace the run in --out-dir",
        "eval_only": "print the validation loss of the run in --out-dir, or of the newest",
    }.items():
        parser.add_argument(as_flag(name), action="store_true", help=help)
    parser.add_config(with_micro_batches(defaults, platform()))
    return parser.parse(argv)


def new_config(given: dict[str, Any]) -> RunConfig:
    """The configuration of a new run: its preset's, with what was typed."""
    if given.get("deterministic"):
        make_deterministic()
    run_config = preset_for(platform(), given.get("preset")).replace(**given)
    if "micro_batch_size" not in given:
        run_config = with_micro_batches(run_config, platform())
    return run_config


def resumed_config(path: Path, given: dict[str, Any], eval_only: bool) -> RunConfig:
    """The stored configuration with what was given now.

    Raises:
        InputError: something given contradicts the run.
    """
    stored, _ = runs.read_run(path)
    if stored.deterministic:
        make_deterministic()
    platform()
    for name, value in given.items():
        if name not in (*CHANGEABLE, "data") and value != stored.flat(name):
            raise InputError(
                f"{as_flag(name)} {value} contradicts the run in {path}, which has "
                f"{stored.flat(name)}: leave the flag out, or start another run"
            )
    run_config = stored.replace(**given)
    if run_config.train.max_iters < stored.train.max_iters and not eval_only:
        raise InputError(
            f"--max-iters {run_config.train.max_iters} is less than the run's "
            f"{stored.train.max_iters}: a resume can only extend it"
        )
    if run_config.train.max_iters > stored.train.max_iters:
        say(
            f"extending the run and its schedule from {stored.train.max_iters} to "
            f"{run_config.train.max_iters} steps"
        )
    return run_config


def report_evaluation(path: Path, val_tokens: np.ndarray, warn: Callable[[str], None]) -> int:
    """Prints the validation loss of the newest whole checkpoint; writes nothing."""
    began = time.monotonic()
    loaded = runs.load_run(path, "latest", tell=warn)
    windows = loaded.config.train.eval_windows
    val = jax.numpy.asarray(val_tokens)
    loss = evaluate(loaded.model, loaded.params, val, max_windows=windows)
    seconds = duration(time.monotonic() - began)
    say(f"{path}, step {loaded.step}: validation loss {loss_text(loss)}, {seconds}")
    return 0


def restored(
    path: Path, run_config: RunConfig, warn: Callable[[str], None]
) -> tuple[TrainState | None, int]:
    """The newest whole checkpoint's state, if there is one, and how many updates it skipped."""
    key = make_keys(run_config.seed).params
    abstract = jax.eval_shape(partial(runs.initial_state, run_config), key)
    found = newest_whole(path / runs.CHECKPOINTS, lambda p: load_state(p, abstract), tell=warn)
    listing.set_newer_aside(path / runs.CHECKPOINTS, found[0].step if found else -1)
    if not found:
        say("no whole checkpoint yet: starting from step 0 with the run's configuration")
        return None, 0
    say(f"resuming from step {found[0].step}")
    return found[1], found[0].skipped


def is_finished(run_config: RunConfig, step: int) -> bool:
    """Whether a run has nothing left to do at `step`; says so."""
    if step < run_config.train.max_iters:
        return False
    say(
        f"this run is finished: {step} of {run_config.train.max_iters} steps; "
        "a larger --max-iters extends it"
    )
    return True


def introduce(run_config: RunConfig, texts: Texts) -> None:
    """What is about to happen, in a few lines."""
    text, tokenizer = texts.text, texts.tokenizer
    params = runs.abstract_params(runs.make_model(run_config))
    say(f"{describe()}, preset {run_config.preset}")
    say(
        f"text: {text.source}, {len(text.text):,} characters, {tokenizer.vocab_size} distinct, "
        f"{len(texts.train):,} for training and {len(texts.val):,} for validation"
    )
    say(
        f"model: {num_params(params):,} parameters; {run_config.train.max_iters:,} steps of "
        f"{run_config.tokens_per_update:,} tokens; a model that knows nothing has loss "
        f"{math.log(tokenizer.vocab_size):.2f}"
    )


def train_and_show(
    path: Path, run_config: RunConfig, texts: Texts, state: TrainState | None, skipped: int
) -> Result:
    """Trains from `state`, or from fresh values, and shows how it goes."""
    plain = runs.make_model(run_config)
    model = suited(plain, run_config, platform())
    if platform() != "cpu":
        say(f"attention: {describe_attention(model, platform())}")

    def sample(params: Any, n: int = SAMPLE_TOKENS) -> str:
        key = jax.random.key(run_config.seed)
        ids = generate(plain, params, np.zeros((1, 1), np.int32), key, max_new_tokens=n)
        return texts.tokenizer.decode(np.asarray(ids)[0, 1:])

    report = Report(path, run_config, sample, sys.stdout, int(state.step) if state else 0)
    tokens = texts.train, texts.val
    with StopRequest() as stop, report:
        loop = Loop(path, run_config, model, state, tokens, report, stop, skipped=skipped)
        return loop.run()


def conclude(path: Path, run_config: RunConfig, result: Result, commands: Commands) -> int:
    """Says how training ended and what to type next; returns the exit status."""
    resume = f"{commands.train} --out-dir {path} --resume"
    if result.skipped:
        say(f"{result.skipped} updates were not finite, and were skipped")
    if result.signal is not None:
        where = f"at step {result.step}, saved" if result.step else "before the first step"
        say(f"stopped {where}; go on with\n    {resume}")
        return 128 + result.signal
    if result.val_loss is not None and result.best is not None:
        say(f"final validation loss: {loss_text(result.val_loss)}, best {result.best:.4f}")
    say(f"{duration(result.seconds)} in all, {result.step:,} steps; picture: {path / runs.PICTURE}")
    if result.step < run_config.train.max_iters:
        say(f"--max-minutes is over; go on with\n    {resume}")
    say(f'sample from it with\n    {commands.sample} --out-dir {path} --prompt "ROMEO:"')
    return 0


def say(line: str) -> None:
    """A line for people."""
    print(line, flush=True)
