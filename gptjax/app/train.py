"""train.py, from the command line to the commands to type next.

Start reading at `run`. The functions it calls follow below, in the same order.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from gptjax.app import dry_run, hints
from gptjax.app.beginning import begin, folder_of, go_on
from gptjax.app.loop import Loop, Reporter, Result, Silent
from gptjax.app.machines import Ending, describe_mesh, taking_part
from gptjax.app.page import write_page
from gptjax.app.report import Report, duration, loss_text
from gptjax.app.resume import is_finished, record, restored
from gptjax.app.script import run_script, warner
from gptjax.app.signals import StopRequest
from gptjax.app.source import first_state, read_source
from gptjax.app.train_flags import OPTIONS, check_options, new_config, parse
from gptjax.backends import sharding
from gptjax.backends.devices import describe, platform, use_compilation_cache
from gptjax.backends.distributed import Peers
from gptjax.backends.execution import describe_attention, suited
from gptjax.backends.feeding import evaluate, is_on_device, to_validate
from gptjax.config import RunConfig
from gptjax.inference.generation import generate
from gptjax.model import num_params
from gptjax.page.build import check_size
from gptjax.store import runs
from gptjax.text import shell
from gptjax.text.reading import STANDARD_INPUT
from gptjax.text.splitting import Texts
from gptjax.training import TrainState

SAMPLE_TOKENS = 200


class Start(NamedTuple):
    """Where training starts.

    Attributes:
        state: None to initialize one.
        skipped: updates that earlier processes skipped.
        is_saved: the run itself can restore this state, from a checkpoint or from its seed. Another
            run's weights may have changed by then.
    """

    state: TrainState | None
    step: int
    skipped: int
    is_saved: bool


def main(
    argv: list[str] | None = None,
    *,
    commands: shell.Commands | None = None,
    data_dir: Path = Path("data"),
) -> int:
    """Trains as the flags say.

    Args:
        argv: the flags; None means the process's arguments.
        commands: what the user types to run the scripts, for messages; detected if None.
        data_dir: the folder in which a corpus known by name is, or is downloaded to.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP,
            138 SIGUSR1.
    """
    commands = commands or shell.found()
    ending = Ending(commands.train)

    def body(argv: list[str]) -> int:
        dry_run.simulate(argv, commands.train)
        with taking_part(argv, commands.train, ending) as peers:
            return run(argv, commands, data_dir, peers)

    return ending.of(run_script(commands.train, body, argv, is_shown=True))


def run(argv: list[str], commands: shell.Commands, data_dir: Path, peers: Peers) -> int:
    """The script's body; returns the exit status. `run_script` turns its errors into one line."""
    # 1. Read the flags.
    began, warn = time.monotonic(), warner(commands.train)
    given = parse(argv, commands)
    options = {name: given.pop(name, None) for name in OPTIONS}
    check_options(options, given, peers)
    if options["dry_run"]:
        return dry_run.show(given, options["mesh"], options["dry_run_tokens"], say)
    use_compilation_cache()
    goes_on = options["resume"] or options["eval_only"]
    source = None
    if "init_from" in given:
        given["init_from"] = os.path.abspath(given["init_from"])
        source = None if goes_on else read_source(Path(given["init_from"]), warn)
    new = None if goes_on else new_config(given, options["mesh"], peers, source)
    if new and options["page"]:  # without the vocabulary, which is not known yet and mostly small
        check_size(num_params(runs.abstract_params(runs.make_model(new))), "float16")

    # 2. Find or make the run's folder. A new one is removed again if the text cannot be used.
    with folder_of(options, new, peers, warn) as path:
        # 3. Choose and store configuration, text and devices, or read those of the run.
        if new and peers.leads:
            run_config, texts, mesh = begin(path, new, options, data_dir, began, peers, say, source)
        else:
            run_config, texts, mesh = go_on(path, given, options, new, data_dir, peers, say)
        if peers.leads:
            peers.agree(str(path))  # the other processes wait for the path in `folder_of`
        if options["eval_only"]:
            return report_evaluation(path, run_config, texts, warn, mesh)

        # 4. Start at step 0, or at the newest whole checkpoint.
        say(f"run: {path}")
        state, skipped = None, 0
        if options["resume"]:
            state, skipped = restored(path, run_config, warn, say, mesh, peers)
        step = int(state.step) if state else 0
        if is_finished(run_config, step, say):
            if options["page"]:
                say(write_page(path, command=commands.page))
            return 0
        if peers.leads:
            runs.remove_temporaries(path)
        if options["resume"]:
            rewarm = bool(options["rewarm"])
            run_config = record(path, run_config, step, rewarm, say, is_written=peers.leads)

        is_saved = state is not None or run_config.init_from is None
        if state is None and run_config.init_from is not None:
            source = source or read_source(Path(run_config.init_from), warn)
            say(f"starting from the weights in {source.path}")
            state = first_state(source, run_config, mesh)
        source = None  # free the memory of its weights

        # 5. Train, and print what to type next.
        introduce(run_config, texts, mesh)
        start = Start(state, step, skipped, is_saved)
        result = train_and_show(path, run_config, texts, start, mesh, peers, warn)
    return conclude(path, run_config, texts, result, commands, bool(options["page"]))


def report_evaluation(
    path: Path,
    run_config: RunConfig,
    texts: Texts,
    warn: Callable[[str], None],
    mesh: Mesh | None,
) -> int:
    """Prints the validation loss of the newest whole checkpoint, and writes nothing."""
    began = time.monotonic()
    loaded = runs.load_run(path, "latest", tell=warn, mesh=mesh)
    loss = evaluate(
        sharding.spread(loaded.model, mesh),
        loaded.params,
        to_validate(run_config, mesh, (texts.train, texts.val)),
        max_windows=loaded.config.train.eval_windows,
        placement=sharding.placement(mesh),
    )
    seconds = duration(time.monotonic() - began)
    shown = loss_text(loss, texts.bytes_per_token[1])
    say(f"{path}, step {loaded.step}: validation loss {shown}, {seconds}")
    return 0


def introduce(run_config: RunConfig, texts: Texts, mesh: Mesh | None) -> None:
    """Prints the device, the text and the model in a few lines."""
    params = runs.abstract_params(runs.make_model(run_config))
    source = "a pipe" if texts.source == STANDARD_INPUT else texts.source
    say(f"{describe()}, preset {run_config.preset}")
    if jax.device_count() > 1:
        say(describe_mesh(mesh, run_config))
    say(
        f"text: {source}, {texts.size}, {_ids(texts)}, "
        f"{len(texts.train):,} for training and {len(texts.val):,} for validation"
        + ("" if is_on_device(run_config, texts.train, texts.val) else ", read from disk as needed")
    )
    say(
        f"model: {num_params(params):,} parameters; {run_config.train.max_iters:,} steps of "
        f"{run_config.tokens_per_update:,} tokens; a model that knows nothing has loss "
        f"{math.log(texts.tokenizer.vocab_size):.2f}"
    )


def _ids(texts: Texts) -> str:
    """Describes the vocabulary, and how much text a token is."""
    tokenizer = texts.tokenizer
    if tokenizer.kind == "char":
        return f"{tokenizer.vocab_size} distinct"
    _, each = texts.bytes_per_token
    return f"{tokenizer.vocab_size} ids ({tokenizer.kind}) of {each:.2f} bytes"


def train_and_show(
    path: Path,
    run_config: RunConfig,
    texts: Texts,
    start: Start,
    mesh: Mesh | None,
    peers: Peers,
    warn: Callable[[str], None],
) -> Result:
    """Trains from `start`, and shows the progress.

    Raises:
        RunError: training cannot continue; see `Loop.run`.
    """
    plain = runs.make_model(run_config)
    model = suited(plain, run_config, platform())
    if platform() != "cpu":
        say(f"attention: {describe_attention(model, platform())}")
    model = sharding.spread(model, mesh)

    def sample(params: Any, n: int = SAMPLE_TOKENS) -> str:
        key = jax.random.key(run_config.seed)
        prompt = np.full((1, 1), texts.tokenizer.start_id, np.int32)
        ids = generate(plain, params, prompt, key, max_new_tokens=n)
        return texts.tokenizer.decode(np.asarray(ids)[0, 1:])

    report: Reporter = Silent()
    shown: Any = nullcontext()
    if peers.leads:
        report = shown = Report(path, run_config, sample, sys.stdout, warn, start.step)
    with StopRequest() as stop, shown:
        loop = Loop(
            path,
            run_config,
            model,
            start.state,
            (texts.train, texts.val),
            report,
            stop,
            bytes_per_token=texts.bytes_per_token,
            skipped=start.skipped,
            is_saved=start.is_saved,
            mesh=mesh,
            peers=peers,
        )
        return loop.run()


def conclude(
    path: Path,
    run_config: RunConfig,
    texts: Texts,
    result: Result,
    commands: shell.Commands,
    with_page: bool,
) -> int:
    """Prints how training ended and what to type next; returns the exit status.

    Args:
        with_page: write the run's page, unless a signal ended the run.
    """
    resume = hints.resume(commands, path)
    if result.skipped:
        say(f"{result.skipped} updates were skipped because they were not finite")
    if result.signal is not None:
        where = f"at step {result.step}, saved" if result.step else "before the first step"
        say(f"stopped {where}; continue with\n    {resume}")
        return 128 + result.signal
    if result.val_loss is not None and result.best is not None:
        loss = loss_text(result.val_loss, texts.bytes_per_token[1])
        say(f"final validation loss: {loss}, best {result.best:.4f}")
    say(f"{result.step:,} steps in {duration(result.seconds)}; picture: {path / runs.PICTURE}")
    if result.step < run_config.train.max_iters:
        say(f"the time limit (--max-minutes) is reached; continue with\n    {resume}")
    say(f"sample from it with\n    {hints.sample(commands, path, texts.beginning)}")
    if with_page:
        say(write_page(path, command=commands.page))
    else:
        say(f"look inside it with\n    {hints.page(commands, path)}")
    return 0


def say(line: str) -> None:
    """Prints a line for the user."""
    print(line, flush=True)
