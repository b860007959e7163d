"""sample.py, from the command line to the text. Start reading at `run`.

Only the text goes to standard output; everything else goes to stderr.
"""

import io
import itertools
import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.app.machines import mesh_of_model
from gptjax.app.sample_flags import Asked, ModelFlags, parse
from gptjax.app.script import run_script
from gptjax.backends import sharding
from gptjax.backends.devices import describe, platform, use_compilation_cache
from gptjax.errors import InputError
from gptjax.inference.adapt import with_block_size, with_dtype
from gptjax.inference.decoding import Window
from gptjax.inference.generation import stream
from gptjax.inference.scoring import score
from gptjax.inference.text_stream import Pace, SampleWriter
from gptjax.interop.huggingface import Pretrained, load_huggingface
from gptjax.loss import bits_per_byte, bits_per_character
from gptjax.model import GPT, config_of
from gptjax.store import runs
from gptjax.text import shell
from gptjax.text.outputs import write_named
from gptjax.text.reading import like_the_corpus, read_text

ALTERNATIVES = 5


class Row(NamedTuple):
    """A sample to draw: its prompt's index, its own index, and the prompt's text and ids."""

    prompt: int
    sample: int
    text: str
    start: np.ndarray


def main(
    argv: list[str] | None = None,
    *,
    commands: shell.Commands | None = None,
) -> int:
    """Generates samples, or scores a text, as the flags say.

    Args:
        argv: the flags; None means the process's arguments.
        commands: what the user types to run the scripts, for messages; detected if None.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C.
    """
    commands = commands or shell.found()
    return run_script(commands.sample, partial(run, commands=commands), argv)


def run(argv: list[str], commands: shell.Commands) -> int:
    """The script's body; returns the exit status. `run_script` turns its errors into one line."""
    # 1. Read the flags, and the texts that they name, before JAX looks for devices.
    asked = parse(argv, commands)
    score_file = asked.scoring.score
    scored = read_text(score_file) if score_file is not None else ""
    prompts = asked.samples.read_prompts()

    # 2. Load the model.
    use_compilation_cache()
    platform()  # report problems with JAX's devices first
    loaded, what = load(asked.model)
    model, params = adapt(loaded, asked.model)
    tell(f"{what}, on {describe()}, {config_of(model).dtype}")

    # 3. Score a text, or generate samples.
    if score_file is not None:
        scored = like_the_corpus(scored, loaded.tokenizer)
        print_score(model, params, loaded.tokenizer.encode(scored), scored, asked)
    else:
        prompts = [like_the_corpus(prompt, loaded.tokenizer) for prompt in prompts]
        print_samples(model, params, loaded.tokenizer, prompts, asked)
    return 0


def load(flags: ModelFlags) -> tuple[runs.Run | Pretrained, str]:
    """Returns the model with its tokenizer, and a description of where they came from."""
    if flags.from_huggingface is not None:
        folder = Path(flags.from_huggingface)
        pretrained = load_huggingface(folder, tell)
        mesh = mesh_of_model(flags.mesh, config_of(pretrained.model))
        return pretrained._replace(params=sharding.place(mesh, pretrained.params)), str(folder)
    out_dir = flags.out_dir
    path = runs.newest_run(with_checkpoint=True) if out_dir is None else Path(out_dir)
    mesh = mesh_of_model(flags.mesh, runs.read_run(path)[0].model)
    loaded = runs.load_run(path, flags.step, tell=tell, mesh=mesh)
    return loaded, f"{path}, step {loaded.step}"


def adapt(loaded: runs.Run | Pretrained, flags: ModelFlags) -> tuple[Any, Any]:
    """Returns the model and its parameters with the dtype and the context that the flags ask for.

    On a CPU the default dtype is float32, because most processors only emulate bfloat16.
    """
    model, params = loaded.model, loaded.params
    if flags.block_size is not None:
        model, params = with_block_size(model, params, flags.block_size)
    default = "float32" if platform() == "cpu" else config_of(model).dtype
    return with_dtype(model, params, flags.dtype or default)


def print_samples(
    model: Any, params: Any, tokenizer: Any, prompts: list[str], asked: Asked
) -> None:
    """Draws `num_samples` of each prompt, `batch_size` rows at a time, and prints them in order."""
    flags = asked.samples
    starts = [tokenizer.encode_prompt(p) if p else np.array([tokenizer.start_id]) for p in prompts]
    # Sample s of a prompt does not depend on the other prompts or on the number of samples.
    rows = (
        Row(p, s, prompt, start)
        for p, (prompt, start) in enumerate(zip(prompts, starts, strict=True))
        for s in range(flags.num_samples)
    )
    for stop in flags.stop:
        try:
            tokenizer.encode(stop)
        except InputError as error:
            raise InputError(f"--stop {stop!r} can never appear: {error}") from error
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    # Print the note before the text: if both go into one pipe (`2>&1`), it would otherwise land
    # inside a sample. The first token that is not conditioned on all earlier ones is the second
    # one past the block.
    if max(map(len, starts)) + flags.max_new_tokens > config_of(model).block_size + 1:
        tell(slide_note(model, flags.window))
    keep_logprobs = flags.logprobs is not None
    writer = SampleWriter(sys.stdout, tokenizer, flags.stop, keep_logprobs)
    try:
        draw_samples(model, params, rows, asked, writer)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print(flush=True)  # the message about the interruption starts on a new line
        raise
    if flags.logprobs is not None:
        # Rows are drawn side by side, a few tokens of each at a time, so sort the entries.
        entries = sorted(writer.logprobs, key=itemgetter("prompt", "sample", "position"))
        write_named(Path(flags.logprobs), "".join(json.dumps(entry) + "\n" for entry in entries))


def draw_samples(
    model: Any, params: Any, rows: Iterator[Row], asked: Asked, writer: SampleWriter
) -> None:
    """Generates all rows, batch by batch."""
    flags = asked.samples
    pace = Pace(sys.stdout.isatty() or bool(flags.stop))
    while batch := list(itertools.islice(rows, asked.model.batch_size)):
        writer.begin([(row.prompt, row.sample, row.text) for row in batch])
        for drawn in stream(
            model,
            params,
            [row.start for row in batch],
            jax.random.key(flags.seed),
            asked.sampling,
            max_new_tokens=flags.max_new_tokens,
            window=flags.window,
            rows=[row.sample for row in batch],
            at_once=pace,
            alternatives=ALTERNATIVES if flags.logprobs is not None else 0,
        ):
            if writer.feed(drawn):
                break
        writer.end()


def slide_note(model: Any, window: Window) -> str:
    """Describes what happens past block_size tokens."""
    block_size = config_of(model).block_size
    if not isinstance(model, GPT):  # a rung of the lecture has no cache
        return f"past {block_size} tokens: each token sees the last {block_size}"
    if window == "exact":
        return (
            f"past {block_size} tokens: each token sees the last {block_size}, which are encoded "
            "again each time; --window chunked is faster"
        )
    return (
        f"past {block_size} tokens: each token sees the last {block_size // 2} to {block_size}; "
        f"with --window exact always {block_size}, which is slower"
    )


def print_score(model: Any, params: Any, ids: Any, text: str, asked: Asked) -> None:
    """Prints the loss of a text in the usual units."""
    block_size = config_of(model).block_size
    stride = asked.scoring.stride
    stride = max(1, block_size // 2) if stride is None else stride
    found = score(model, params, ids, stride=stride, batch_size=asked.model.batch_size)
    nats = found.nats / found.tokens
    print(f"tokens scored: {found.tokens:,}, each with up to {block_size} tokens of context")
    print(f"loss: {nats:.4f} nats per token")
    print(f"bits per character: {bits_per_character(nats, len(text) / len(ids)):.4f}")
    print(f"bits per byte: {bits_per_byte(nats, len(text.encode()) / len(ids)):.4f}")
    print(f"perplexity: {math.exp(min(nats, 700)):.4f} per token")


def tell(line: str) -> None:
    """Prints a line to stderr."""
    print(line, file=sys.stderr, flush=True)
