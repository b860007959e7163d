"""Trains a GPT on a text and writes a run that sample.py reads.

python train.py                                    the preset that suits this machine
python train.py --data my.txt --n-layer 4 --n-embd 128
python train.py --resume                           go on with the newest run
"""

import math
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax import checkpoint, data, runs, scripts
from gptjax.backend import describe, make_deterministic, platform, use_compilation_cache
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.execution import suited, with_micro_batches
from gptjax.generation import generate
from gptjax.lock import locked
from gptjax.loop import StopRequest, train
from gptjax.model import num_params
from gptjax.presets import PRESETS, preset_for
from gptjax.report import Report, duration, loss_text
from gptjax.training import TrainState, evaluate, make_keys

DATA_DIR = Path(__file__).resolve().parent / "data"
SAMPLE_TOKENS = 200

# What a resume may change; everything else is the run's.
CHANGEABLE = (
    "max_iters eval_interval log_interval keep max_minutes save_interval_minutes skip_nonfinite "
    "remat"
).split()


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C, 143 SIGTERM."""
    return scripts.run_script("train.py", run, argv)


def run(argv: list[str]) -> int:
    """The script's body; raises what `run_script` turns into a line."""
    use_compilation_cache()
    given = parse(argv)
    resume, eval_only = given.pop("resume", False), given.pop("eval_only", False)
    overwrite, out_dir = given.pop("overwrite", False), given.pop("out_dir", None)
    if out_dir == "":
        raise InputError("--out-dir is empty: give the path of a folder")
    if overwrite and (resume or eval_only):
        raise InputError("--overwrite starts anew, so it cannot go with --resume or --eval-only")
    if resume or eval_only:
        path = Path(out_dir) if out_dir else runs.newest_run()
        runs.read_run(path)  # whether it is one is said before anything is opened in it
        with nullcontext() if eval_only else locked(path, warn):
            config = resumed_config(path, given, eval_only)
            texts = data.read_texts(config, DATA_DIR, say, run=path, given="data" in given)
            if eval_only:
                return report_evaluation(path, texts.val)
            return go(path, texts, resume=True)
    if given.get("deterministic"):
        make_deterministic()
    config = preset_for(platform(), given.get("preset")).replace(**given)
    if "micro_batch_size" not in given:
        config = with_micro_batches(config, platform())
    path = Path(out_dir) if out_dir else runs.new_folder(config.preset)
    runs.check_free(path, overwrite)
    texts = data.read_texts(config, DATA_DIR, say)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path, warn):
        runs.check_free(path, overwrite)  # another process may have been faster
        if overwrite:
            runs.remove_run(path)
        runs.write_run(path, texts.config, texts.tokenizer)
        return go(path, texts, resume=False)


def go(path: Path, texts: data.Texts, resume: bool) -> int:
    """Trains in a folder that is this process's, from its newest checkpoint or from the start."""
    say(f"run: {path}")
    config = texts.config
    state, skipped = restored(path, config) if resume else (None, 0)
    if state and int(state.step) >= config.train.max_iters:
        say(
            f"this run is finished: {state.step} of {config.train.max_iters} steps; "
            "a larger --max-iters extends it"
        )
        return 0
    runs.remove_temporaries(path)
    if resume:
        runs.write_config(path, config)
    introduce(texts)
    return fit(path, texts, state, skipped)


def parse(argv: list[str]) -> dict[str, Any]:
    """Flags to values, by field name; absent when not given."""
    peek = scripts.FlagParser("train.py", "", add_help=False)
    peek.add("preset", str, "")
    name = peek.parse_some(argv).get("preset")
    defaults = PRESETS.get(name or "") or preset_for(platform())
    parser = scripts.FlagParser("train.py", __doc__ or "")
    parser.add("preset", str, f"settings to start from: {', '.join(PRESETS)}", defaults.preset)
    parser.add("out_dir", str, "folder of the run [runs/<preset>-<date>-<time>]")
    for name, help in {
        "resume": "go on with the run in --out-dir, or with the newest",
        "overwrite": "replace the run in --out-dir",
        "eval_only": "print the validation loss of the run in --out-dir, or of the newest",
    }.items():
        parser.add_argument(scripts.as_flag(name), action="store_true", help=help)
    parser.add_config(with_micro_batches(defaults, platform()))
    return parser.parse(argv)


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
                f"{scripts.as_flag(name)} {value} contradicts the run in {path}, which has "
                f"{stored.flat(name)}: leave the flag out, or start another run"
            )
    config = stored.replace(**given)
    if config.train.max_iters < stored.train.max_iters and not eval_only:
        raise InputError(
            f"--max-iters {config.train.max_iters} is less than the run's "
            f"{stored.train.max_iters}: a resume can only extend it"
        )
    if config.train.max_iters > stored.train.max_iters:
        say(
            f"extending the run and its schedule from {stored.train.max_iters} to "
            f"{config.train.max_iters} steps"
        )
    return config


def restored(path: Path, config: RunConfig) -> tuple[TrainState | None, int]:
    """The newest whole checkpoint's state, if there is one, and how many updates it skipped."""
    key = make_keys(config.seed).params
    abstract = jax.eval_shape(partial(runs.initial_state, config), key)
    found = checkpoint.newest_whole(
        path / runs.CHECKPOINTS, lambda p: checkpoint.load_state(p, abstract), tell=warn
    )
    checkpoint.set_newer_aside(path / runs.CHECKPOINTS, found[0].step if found else -1)
    if not found:
        say("no whole checkpoint yet: starting from step 0 with the run's configuration")
        return None, 0
    say(f"resuming from step {found[0].step}")
    return found[1], found[0].skipped


def introduce(texts: data.Texts) -> None:
    """What is about to happen, in a few lines."""
    config, text, tokenizer = texts.config, texts.text, texts.tokenizer
    params = runs.abstract_params(runs.make_model(config))
    cfg = config.train
    say(f"{describe()}, preset {config.preset}")
    say(
        f"text: {text.source}, {len(text.text):,} characters, {tokenizer.vocab_size} distinct, "
        f"{len(texts.train):,} for training and {len(texts.val):,} for validation"
    )
    tokens = cfg.batch_size * cfg.gradient_accumulation_steps * config.model.block_size
    say(
        f"model: {num_params(params):,} parameters; {cfg.max_iters:,} steps of {tokens:,} "
        f"tokens; a model that knows nothing has loss {math.log(tokenizer.vocab_size):.2f}"
    )


def fit(path: Path, texts: data.Texts, state: TrainState | None, skipped: int) -> int:
    """Trains, shows, and says what to type next."""
    config = texts.config
    plain = runs.make_model(config)
    model, attention = suited(plain, config, platform())
    if platform() != "cpu":
        say(f"attention: {attention}")

    def sample(params: Any, n: int = SAMPLE_TOKENS) -> str:
        key = jax.random.key(config.seed)
        ids = generate(plain, params, np.zeros((1, 1), np.int32), key, max_new_tokens=n)
        return texts.tokenizer.decode(np.asarray(ids)[0, 1:])

    report = Report(path, config, sample, sys.stdout, int(state.step) if state else 0)
    with StopRequest() as stop, report:
        result = train(
            path, config, model, state, texts.train, texts.val, report, stop, skipped=skipped
        )
    resume = f"python train.py --out-dir {path} --resume"
    if result.skipped:
        say(f"{result.skipped} updates were not finite, and were skipped")
    if result.signal is not None:
        where = f"at step {result.step}, saved" if result.step else "before the first step"
        say(f"stopped {where}; go on with\n    {resume}")
        return 128 + result.signal
    if result.val_loss is not None and result.best is not None:
        say(f"final validation loss: {loss_text(result.val_loss)}, best {result.best:.4f}")
    say(f"{duration(result.seconds)} in all, {result.step:,} steps; picture: {path / runs.PICTURE}")
    if result.step < config.train.max_iters:
        say(f"--max-minutes is over; go on with\n    {resume}")
    say(f'sample from it with\n    python sample.py --out-dir {path} --prompt "ROMEO:"')
    return 0


def report_evaluation(path: Path, val_tokens: np.ndarray) -> int:
    """Prints the validation loss of the newest whole checkpoint; writes nothing."""
    began = time.monotonic()
    loaded = runs.load_run(path, "latest", tell=warn)
    cfg = loaded.config.train
    val = jax.numpy.asarray(val_tokens)
    loss = evaluate(loaded.model, loaded.params, val, max_windows=cfg.eval_iters * cfg.batch_size)
    seconds = duration(time.monotonic() - began)
    say(f"{path}, step {loaded.step}: validation loss {loss_text(loss)}, {seconds}")
    return 0


def say(line: str) -> None:
    """A line for people."""
    print(line, flush=True)


def warn(line: str) -> None:
    """A line about something that is wrong but does not stop the run."""
    print(f"train.py: warning: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
