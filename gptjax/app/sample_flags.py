"""sample.py's flags, as dataclasses that validate themselves."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gptjax.app import foreign_flags
from gptjax.app.flags import FlagParser, as_flag
from gptjax.config import Dtype, check_seed
from gptjax.errors import InputError
from gptjax.fields import MAX_INT, check, check_types, flag
from gptjax.inference.decoding import Window
from gptjax.inference.generation import check_generation
from gptjax.inference.sampling import Sampling
from gptjax.text.outputs import check_named
from gptjax.text.reading import read_text
from gptjax.text.shell import Commands

HELP = """Generates text from a run of `{train}`. Only the text goes to standard output.

{sample}                                   from the newest run
{sample} --out-dir runs/big --prompt "ROMEO:" --temperature 0.8 --top-k 40
{sample} --prompt "ROMEO:" --prompt "JULIET:" --num-samples 3
{sample} --score my.txt                    print the loss of a text instead
{sample} --from-huggingface gpt2 --prompt "Once upon a time"
"""


@dataclass(frozen=True)
class ModelFlags:
    """Which model to use, and how to compute it.

    Attributes:
        step: `best`, `latest` or a step's number.
    """

    out_dir: str | None = flag(None, "folder of the run [the newest under runs/]", path=True)
    from_huggingface: str | None = flag(
        None, "folder of a GPT-2 to sample from, instead of a run", path=True
    )
    step: str | int = "best"
    dtype: Dtype | None = flag(
        None, "dtype of weights and computation [float32 on a CPU, else the run's]"
    )
    block_size: int | None = flag(None, "longest context, at most the model's [the model's]")
    batch_size: int = flag(16, "samples to generate at once")
    mesh: str | None = flag(
        None, "devices to divide the model over, as in fsdp=4,tensor=2 [one device]"
    )

    def __post_init__(self) -> None:
        check_types(self)
        rule = "must be at least 1 and at most 65536"
        check(1 <= self.batch_size <= 2**16, "batch_size", self.batch_size, rule)
        if self.from_huggingface is not None and (self.out_dir is not None or self.step != "best"):
            raise InputError("--from-huggingface names the model: leave out --out-dir and --step")


@dataclass(frozen=True)
class SampleFlags:
    """Which samples to generate. `Sampling` says how to draw their tokens."""

    prompt: tuple[str, ...] | None = flag(
        None, "text to continue; repeat the flag for more prompts [a newline]"
    )
    prompt_file: str | None = flag(
        None, "file with the text to continue; - is standard input", path=True
    )
    num_samples: int = flag(1, "samples to generate for each prompt")
    max_new_tokens: int = flag(500, "tokens to add to the prompt")
    stop: tuple[str, ...] = flag(
        (), "end a sample before this text; repeat the flag for more texts [never]"
    )
    window: Window = flag(
        "chunked",
        "context past block_size: chunked is fast, exact always reads the last block_size tokens",
    )
    seed: int = flag(1337, "seed for sampling", int32=False)
    logprobs: str | None = flag(
        None, "file for each token's log probability, as JSON lines", path=True
    )

    def __post_init__(self) -> None:
        check_types(self)
        rule = f"must be at least 1 and at most {MAX_INT - 1}"
        check(self.num_samples >= 1, "num_samples", self.num_samples, rule)
        check_generation(self.max_new_tokens, self.window)
        check_seed(self.seed)
        if "" in self.stop:
            raise InputError("--stop is empty: give the text to stop at")
        if self.prompt is not None and self.prompt_file is not None:
            raise InputError("--prompt and --prompt-file were both given: give one")
        if self.logprobs is not None:
            check_named(Path(self.logprobs), "--logprobs")

    def read_prompts(self) -> list[str]:
        """Returns the prompts, or the text of the prompt file."""
        if self.prompt_file is not None:
            return [read_text(self.prompt_file)]
        return list(self.prompt or [""])


@dataclass(frozen=True)
class ScoreFlags:
    """The text to score, if any."""

    score: str | None = flag(
        None, "print the loss of the text in this file, and generate nothing", path=True
    )
    stride: int | None = flag(
        None, "with --score: tokens between the starts of two windows; 1 is exact [half]"
    )

    def __post_init__(self) -> None:
        check_types(self)
        if self.score is None and self.stride is not None:
            raise InputError("--stride is for --score: give a text to score, or leave out --stride")


class Asked(NamedTuple):
    """All the flags. Scoring a text uses neither `samples` nor `sampling`."""

    model: ModelFlags
    samples: SampleFlags
    sampling: Sampling
    scoring: ScoreFlags


# sample.py's defaults. A temperature of 0.8 is a little safer than the model's distribution.
DEFAULTS = Asked(ModelFlags(), SampleFlags(), Sampling(temperature=0.8), ScoreFlags())


def parse(argv: list[str], commands: Commands) -> Asked:
    """Parses the flags into records.

    Raises:
        InputError: a flag is unknown, its value is wrong, or two flags exclude each other.
    """
    help = HELP.format(**commands._asdict())
    parser = FlagParser(commands.sample, help, foreign=foreign_flags.SAMPLE)
    model, *others = DEFAULTS
    parser.add_fields(model)
    parser.add_step("read")
    for part in others:
        parser.add_fields(part)
    given = parser.parse(argv)
    asked = Asked(*(_replace(part, given) for part in DEFAULTS))
    if asked.scoring.score is not None:
        for part in (asked.samples, asked.sampling):
            for field in dataclasses.fields(part):
                if field.name in given:
                    raise InputError(
                        f"{as_flag(field.name)} is for samples, and --score generates none"
                    )
    return asked


def _replace(part: Any, given: dict[str, Any]) -> Any:
    """Returns the record with the fields that were given replaced."""
    names = {field.name for field in dataclasses.fields(part)}
    return dataclasses.replace(part, **{k: v for k, v in given.items() if k in names})
