"""The command `prepare`: tokenizes files and folders, for `train.py --data`.

It also prepares a corpus by name, as data/prepare.py does.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gptjax.app.flags import FlagParser, as_flag
from gptjax.app.pacing import Stages
from gptjax.app.report import PLAIN_EVERY, make_console, only_shown
from gptjax.app.script import run_script, warner
from gptjax.errors import InputError
from gptjax.fields import check
from gptjax.store.lock import locked
from gptjax.text import corpora, preparing, shell
from gptjax.text.dividing import VAL_FRACTION
from gptjax.text.documents import Documents, find
from gptjax.text.prepared import STATE, is_prepared
from gptjax.text.preparing import Wanted
from gptjax.text.records import CORPORA
from gptjax.text.tokenizers import BPE_SIZE, check_tokenizer
from gptjax.text.unfinished import FILES, check_out
from gptjax.text.unfinished import Progress as Written

# Seconds between updates of the bar; small documents end thousands of times a second.
BAR_EVERY = 0.1
HELP = """Tokenizes texts for `{train} --data DIR`.

{prepare} docs/ more.jsonl.gz --out corpus --tokenizer bpe --vocab-size 4096
{prepare} 'books/**/*.txt' --out corpus            quoted: this command expands the pattern
{prepare} enwik8                                   a corpus by name, fetched to {data}

Each file is a document, and so is each line of a .jsonl file. Files may be compressed (.gz, .zst).
After an interruption, the same command continues. Corpora by name:

{corpora}
"""


def main(
    argv: list[str] | None = None,
    *,
    commands: shell.Commands | None = None,
    command: str = "gptjax prepare",
    data_dir: Path = Path("data"),
) -> int:
    """Tokenizes a text as the arguments say.

    Args:
        argv: paths and flags; None means the process's arguments.
        commands: what the user types to run the scripts, for messages; detected if None.
        command: what the user typed, for help and errors.
        data_dir: the folder for GPT-2's vocabulary and named corpora, which are downloaded to it.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C.
    """
    body = partial(run, commands=commands or shell.found(), command=command, data_dir=data_dir)
    return run_script(command, body, argv, is_shown=True)


def run(argv: list[str], commands: shell.Commands, command: str, data_dir: Path) -> int:
    """The command's body. `run_script` turns the errors it raises into one line."""
    names = {"train": commands.train, "prepare": command, "data": data_dir}
    parser = FlagParser(command, HELP.format(corpora=table(), **names), takes_paths=True)
    add_flags(parser)
    parser.add("val_fraction", float, "share of the text for validation", VAL_FRACTION)
    parser.add("field", str, "field of a .jsonl file's objects that has the text", "text")
    given, paths = parser.parse_with_paths(argv)
    if not paths:
        raise InputError(f"{command} needs the files or folders to prepare (--help says more)")
    if len(paths) == 1 and paths[0] in CORPORA and not os.path.lexists(paths[0]):
        return by_name(paths[0], given, commands, command, data_dir)
    if not given.get("out"):
        raise InputError("--out is missing: give the folder to write to")
    out, wanted = Path(given["out"]), wanted_of(given)
    check_out(out, given.get("overwrite", False))
    source = Documents(texts_of(paths, out), given.get("field", "text"))
    say(f"{len(source.files):,} files, {source.bytes / 1e6:,.1f} MB")
    prepare(source, out, wanted, given, commands, command, data_dir)
    return 0


def texts_of(paths: list[str], out: Path) -> list[Path]:
    """Finds the text files. The files of --out, which may be inside an input folder, do not count.

    Raises:
        InputError: there is no text, or a folder contains prepared text.
    """
    own = out.resolve()
    for path in map(Path, paths):
        if is_prepared(path) and path.resolve() != own:
            raise InputError(
                f"{path} contains prepared text: give it to train.py, as "
                f"--data {shell.quoted(path)}"
            )
    files = [
        path
        for path in find(paths, print)
        if path.name not in FILES or path.parent.resolve() != own
    ]
    if not files:
        raise InputError(f"found no text file in {', '.join(paths)}, only prepared text")
    return files


def add_flags(parser: FlagParser, tokenizer: str = "char") -> None:
    """Adds the flags that apply to files and to named corpora.

    Args:
        tokenizer: the default of --tokenizer, for the help.
    """
    parser.add("out", Path, "folder to write to")
    parser.add("tokenizer", Path, "char, byte, bpe, gpt2, or the folder of a vocabulary", tokenizer)
    parser.add("vocab_size", int, f"ids of the vocabulary that bpe learns [{BPE_SIZE}]")
    parser.add("overwrite", bool, "replace the prepared text in --out")


def by_name(
    name: str, given: dict[str, Any], commands: shell.Commands, command: str, data_dir: Path
) -> int:
    """Downloads, verifies and tokenizes a named corpus, by default in `data_dir` / `name`."""
    corpus = CORPORA[name]
    for flag in ("val_fraction", "field"):
        if flag in given:
            raise InputError(f"{as_flag(flag)} is not for {name}: leave it out")
    out = Path(given.get("out") or data_dir / name)
    wanted = wanted_of({"tokenizer": corpus.tokenizer} | given)
    check_out(out, given.get("overwrite", False))
    source = corpora.documents_of(corpus, corpora.fetch(corpus, data_dir, say))
    about = {"corpus": name, "licence": corpus.licence, "split": corpus.split}
    say(f"{corpus.title}, {source.bytes / 1e6:,.1f} MB: {corpus.split}")
    prepare(source, out, wanted, given, commands, command, data_dir, about)
    return 0


def say(line: str) -> None:
    """Prints a line and flushes it."""
    print(line, flush=True)


def table() -> str:
    """One line for each named corpus, for the help."""
    return "\n".join(
        f"  {name:<12} {corpus.size / 1e6:>9,.1f} MB  {corpus.licence}"
        for name, corpus in CORPORA.items()
    )


def wanted_of(given: dict[str, Any]) -> Wanted:
    """Returns the settings that decide what is written.

    Raises:
        InputError: a setting is wrong.
    """
    name, size = given.get("tokenizer", "char"), given.get("vocab_size")
    check_tokenizer(name, size)
    fraction = given.get("val_fraction", VAL_FRACTION)
    check(0 < fraction < 1, "val_fraction", fraction, "must be above 0 and below 1")
    return Wanted(name, size or BPE_SIZE, fraction)


def prepare(
    source: Documents,
    out: Path,
    wanted: Wanted,
    given: dict[str, Any],
    commands: shell.Commands,
    command: str,
    data_dir: Path,
    about: dict[str, Any] | None = None,
) -> None:
    """Tokenizes a text, shows the progress, and prints a summary."""
    stages, warn = Stages(), warner(command)
    overwrite = given.get("overwrite", False)
    with held(out, warn), shown(source, stages, warn) as show:
        try:
            meta = preparing.prepare(
                source, out, wanted, data_dir, print, show, about=about, overwrite=overwrite
            )
        except KeyboardInterrupt:
            say("interrupted: the same command continues from here")
            raise
        except OSError:
            if (out / STATE).exists():
                say("stopped: the same command continues from here")
            raise
    conclude(meta, out, stages.ended(), commands)


@contextlib.contextmanager
def held(out: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Makes the folder and locks it. A new folder that stays empty is removed again."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out, warn, "preparing a text", "--out"):
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty
                out.rmdir()


@contextlib.contextmanager
def shown(
    source: Documents, stages: Stages, warn: Callable[[str], None]
) -> Iterator[Callable[[str, Written], None]]:
    """Yields a function that shows progress: a bar on a terminal, else a line now and then."""
    console = make_console(sys.stdout)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("reading", total=source.bytes)
    every = BAR_EVERY if console.is_terminal else PLAIN_EVERY
    last, stage = time.monotonic(), "reading"

    def show(what: str, progress: Written) -> None:
        nonlocal last, stage
        stages.at(what)
        if what == stage and time.monotonic() - last < every:
            return
        last = time.monotonic()
        with only_shown("the progress", warn):
            if what != stage:  # nothing is read in this one yet, and its speed is not known
                stage = what
                bar.reset(task, description=what)
                return
            tokens = progress.train.tokens + progress.val.tokens
            line = f"{what} {source.read / 1e6:,.0f} of {source.bytes / 1e6:,.0f} MB"
            line += f", {tokens:,} tokens" if tokens else ""
            bar.update(task, description=line, completed=source.read)
            if not console.is_terminal:
                console.print(line, soft_wrap=True)

    with bar:
        yield show


def conclude(
    meta: dict[str, Any], out: Path, stages: dict[str, float], commands: shell.Commands
) -> None:
    """Prints what was written, the seconds of each stage, and what to type next."""
    size = sum(meta[name]["bytes"] for name in ("train", "val"))
    for name in ("train", "val"):
        split = meta[name]
        print(
            f"{out / name}.bin: {split['tokens']:,} tokens of {split['bytes']:,} bytes "
            f"({split['bytes'] / split['tokens']:.2f} bytes per token)"
        )
    seconds, each = sum(stages.values()), ", ".join(f"{k} {v:.1f} s" for k, v in stages.items())
    rate = size / 1e6 / seconds
    print(f"{meta['documents']:,} documents in {seconds:.0f} s ({each}), {rate:.1f} MB/s")
    print(f"train on it with\n    {commands.train} --data {shell.quoted(out)}")
