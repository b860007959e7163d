"""The story of a sampling run, from the command line to the text.

`run` tells it. Standard output is the text alone; all else goes to stderr.
"""

import io
import itertools
import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.app.flags import FlagParser, as_flag, whole_number
from gptjax.app.script import INSTALLED, Commands, run_script
from gptjax.backends.devices import describe, platform, use_compilation_cache
from gptjax.config import Dtype, check_seed
from gptjax.errors import ConfigError, InputError
from gptjax.files import write_whole
from gptjax.inference.adapt import with_block_size, with_dtype
from gptjax.inference.decoding import Window
from gptjax.inference.generation import check_generation, stream
from gptjax.inference.sampling import Sampling, make_sampling
from gptjax.inference.scoring import score
from gptjax.inference.text_stream import Pace, SampleWriter
from gptjax.interop.huggingface import Pretrained, load_huggingface
from gptjax.loss import bits_per_character
from gptjax.model import GPT, config_of
from gptjax.store import runs
from gptjax.text.reading import read_text

HELP = """Samples text from a run of `{train}`. Standard output is the text alone.

{sample}                                   from the newest run
{sample} --out-dir runs/big --prompt "ROMEO:" --temperature 0.8 --top-k 40
{sample} --prompt "ROMEO:" --prompt "JULIET:" --num-samples 3
{sample} --score my.txt                    the loss of a text instead
{sample} --from-huggingface gpt2 --prompt "Once upon a time"
"""
DEFAULTS: dict[str, Any] = {
    "num_samples": 1,
    "batch_size": 16,
    "max_new_tokens": 500,
    "temperature": 0.8,
    "repetition_penalty": 1.0,
    "window": "chunked",
    "seed": 1337,
    "step": "best",
}
FILTERS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# Flags that mean nothing where a text is scored.
FOR_SAMPLES = (
    *FILTERS,
    *"prompt prompt_file num_samples max_new_tokens window stop logprobs seed".split(),
)
ALTERNATIVES = 5


class Row(NamedTuple):
    """A sample to draw: the number of its prompt, its own number, the prompt's text and ids."""

    prompt: int
    sample: int
    text: str
    start: np.ndarray


def main(
    argv: list[str] | None = None,
    *,
    commands: Commands = INSTALLED,
) -> int:
    """Samples, or scores a text, as the flags say.

    Args:
        argv: the flags; None is the process's own.
        commands: what the user typed, for hints and errors.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C.
    """
    return run_script(commands.sample, partial(run, commands=commands), argv)


def run(argv: list[str], commands: Commands) -> int:
    """A sampling run; raises what `run_script` turns into a line, and returns the exit status."""
    # 1. What was typed, and the texts that it names, before any device is looked for.
    given = parse(argv, commands)
    flags = DEFAULTS | given
    check(given, flags)
    scored = read_text(Path(flags["score"])) if "score" in flags else ""
    prompts = read_prompts(flags)

    # 2. The model.
    use_compilation_cache()
    platform()  # what is wrong with JAX's devices is said first
    loaded, what = load(flags)
    model, params = adapt(loaded, flags)
    tell(f"{what}, on {describe()}, {config_of(model).dtype}")

    # 3. Its loss of a text, or text of its own.
    if "score" in flags:
        return print_score(model, params, loaded.tokenizer.encode(scored), scored, flags)
    return print_samples(model, params, loaded.tokenizer, prompts, flags)


def check(given: dict[str, Any], flags: dict[str, Any]) -> None:
    """Holds the flags to their rules before anything is read."""
    for name, most in {"num_samples": 2**31 - 1, "batch_size": 2**16}.items():
        if not 1 <= flags[name] <= most:
            raise ConfigError(name, flags[name], f"must be at least 1 and at most {most}")
    check_generation(flags["max_new_tokens"], flags["window"])
    sampling_of(flags)
    check_seed(flags["seed"])
    if flags.get("stop") == "":
        raise InputError("--stop is empty: give the text to stop at")
    if "logprobs" in flags and not Path(flags["logprobs"]).absolute().parent.is_dir():
        raise InputError(f"--logprobs {flags['logprobs']}: there is no such folder to write it in")
    if "score" in flags:
        for name in FOR_SAMPLES:
            if name in given:
                raise InputError(f"{as_flag(name)} is for samples, and --score makes none")
    elif "stride" in flags:
        raise InputError("--stride is for --score: give a text to score, or leave it out")


def load(flags: dict[str, Any]) -> tuple[runs.Run | Pretrained, str]:
    """The model and its tokenizer, and what they are for a person."""
    if "from_huggingface" in flags:
        if "out_dir" in flags or flags["step"] != "best":
            raise InputError("--from-huggingface names the model: leave out --out-dir and --step")
        folder = Path(flags["from_huggingface"])
        return load_huggingface(folder), str(folder)
    path = Path(flags["out_dir"]) if "out_dir" in flags else runs.newest_run(with_checkpoint=True)
    loaded = runs.load_run(path, flags["step"], tell=tell)
    return loaded, f"{path}, step {loaded.step}"


def adapt(loaded: runs.Run | Pretrained, flags: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its parameters in the dtype and with the context that were asked for.

    On a CPU the dtype is float32 unless asked: most processors only emulate bfloat16.
    """
    model, params = loaded.model, loaded.params
    if "block_size" in flags:
        model, params = with_block_size(model, params, flags["block_size"])
    default = "float32" if platform() == "cpu" else config_of(model).dtype
    return with_dtype(model, params, flags.get("dtype", default))


def print_samples(
    model: Any, params: Any, tokenizer: Any, prompts: list[str], flags: dict[str, Any]
) -> int:
    """Draws `num_samples` of each prompt, `batch_size` rows at a time, and prints them in order."""
    starts = [tokenizer.encode(p) if p else np.array([tokenizer.start_id]) for p in prompts]
    # Sample s of a prompt is the same whatever other prompts there are, and however many samples.
    rows = (
        Row(p, s, prompt, start)
        for p, (prompt, start) in enumerate(zip(prompts, starts, strict=True))
        for s in range(flags["num_samples"])
    )
    if "stop" in flags:
        try:
            tokenizer.encode(flags["stop"])
        except InputError as error:
            raise InputError(f"--stop {flags['stop']!r} can never come: {error}") from error
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    writer = SampleWriter(sys.stdout, tell, tokenizer, flags.get("stop"), "logprobs" in flags)
    try:
        draw_samples(model, params, rows, flags, writer)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print(flush=True)  # what is said of it gets a line of its own
        raise
    if "logprobs" in flags:
        lines = [json.dumps(entry) + "\n" for entry in writer.logprobs]
        write_whole(Path(flags["logprobs"]), "".join(lines))
    return 0


def draw_samples(
    model: Any, params: Any, rows: Iterator[Row], flags: dict[str, Any], writer: SampleWriter
) -> None:
    """All rows through the model, batch by batch."""
    note = slide_note(model, flags["window"])
    pace = Pace(sys.stdout.isatty() or "stop" in flags)
    while batch := list(itertools.islice(rows, flags["batch_size"])):
        writer.begin([(row.prompt, row.sample, row.text) for row in batch])
        for drawn in stream(
            model,
            params,
            [row.start for row in batch],
            jax.random.key(flags["seed"]),
            sampling_of(flags),
            max_new_tokens=flags["max_new_tokens"],
            window=flags["window"],
            rows=[row.sample for row in batch],
            at_once=pace,
            alternatives=ALTERNATIVES if "logprobs" in flags else 0,
            on_slide=lambda: writer.note(note),
        ):
            if writer.feed(drawn):
                break
        writer.end()


def sampling_of(flags: dict[str, Any]) -> Sampling:
    """How tokens are drawn."""
    return make_sampling(**{name: flags[name] for name in FILTERS if name in flags})


def slide_note(model: Any, window: Window) -> str:
    """What happens past the block, for a person."""
    block_size = config_of(model).block_size
    if not isinstance(model, GPT):  # a rung of the lecture has no cache
        return f"past {block_size} tokens: each token sees the last {block_size}"
    if window == "exact":
        return (
            f"past {block_size} tokens: each token sees the last {block_size}, encoded again for "
            "each; --window chunked is faster"
        )
    return (
        f"past {block_size} tokens: each token sees the last {block_size // 2} to {block_size}; "
        f"--window exact always {block_size}, slower"
    )


def print_score(model: Any, params: Any, ids: Any, text: str, flags: dict[str, Any]) -> int:
    """Prints the loss of a text in the units that people compare."""
    block_size = config_of(model).block_size
    stride = flags.get("stride", max(1, block_size // 2))
    found = score(model, params, ids, stride=stride, batch_size=flags["batch_size"])
    nats = found.nats / found.tokens
    characters = len(text) / len(ids)
    print(f"tokens scored: {found.tokens:,}, each with up to {block_size} before it")
    print(f"loss: {nats:.4f} nats per token")
    print(f"bits per character: {bits_per_character(nats, characters):.4f}")
    print(f"perplexity: {math.exp(min(nats, 700)):.4f} per token")
    return 0


def parse(argv: list[str], commands: Commands) -> dict[str, Any]:
    """Flags to values; absent when not given."""
    parser = FlagParser(commands.sample, HELP.format(**commands._asdict()))
    parser.add("out_dir", str, "folder of the run [the newest under runs/]")
    parser.add("from_huggingface", str, "folder of a GPT-2 to sample from instead of a run")
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="str",
        help="text to go on from; give it again for more prompts [a newline]",
    )
    parser.add("prompt_file", str, "file with the text to go on from")
    parser.add("num_samples", int, "samples to draw for each prompt", DEFAULTS["num_samples"])
    parser.add("batch_size", int, "samples to draw at once", DEFAULTS["batch_size"])
    parser.add("max_new_tokens", int, "tokens to add to the prompt", DEFAULTS["max_new_tokens"])
    parser.add("temperature", float, "below 1 is safer; 0 is greedy", DEFAULTS["temperature"])
    parser.add("top_k", int, "draw among the k likeliest tokens [all]")
    parser.add("top_p", float, "draw among the likeliest that make up this probability [all]")
    parser.add("min_p", float, "draw among those this fraction as likely as the likeliest [all]")
    parser.add(
        "repetition_penalty",
        float,
        "above 1 makes tokens of the text so far less likely",
        DEFAULTS["repetition_penalty"],
    )
    parser.add("stop", str, "end a sample before this text [never]")
    parser.add(
        "window",
        Window,
        "past the block: chunked is fast, exact conditions on the last block_size tokens always",
        DEFAULTS["window"],
    )
    parser.add("seed", int, "seed of the samples", DEFAULTS["seed"])
    parser.add_argument(
        "--step", type=which_step, metavar="{best,latest,N}", help="checkpoint to read [best]"
    )
    parser.add("logprobs", str, "file to write each token's log probability to, as JSON lines")
    parser.add("score", str, "print the loss of the text in this file, and no sample")
    parser.add("stride", int, "with --score: tokens from window to window; 1 is exact [half]")
    parser.add("dtype", Dtype, "of weights and computation [on a CPU float32, else the run's]")
    parser.add("block_size", int, "longest context, at most the model's [the model's]")
    return parser.parse(argv)


def which_step(text: str) -> str | int:
    """`best`, `latest` or a step's number."""
    return text if text in ("best", "latest") else whole_number(text)


def read_prompts(flags: dict[str, Any]) -> list[str]:
    """The prompts themselves, or the text of the file."""
    if "prompt" in flags and "prompt_file" in flags:
        raise InputError("--prompt and --prompt-file were both given: give one")
    if "prompt_file" in flags:
        return [read_text(Path(flags["prompt_file"]))]
    return flags.get("prompt", [""])


def tell(line: str) -> None:
    """A line that is not the text."""
    print(line, file=sys.stderr, flush=True)
