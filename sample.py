"""Samples text from a run of train.py. Standard output is the text alone.

python sample.py                                   from the newest run
python sample.py --out-dir runs/big --prompt "ROMEO:" --temperature 0.8 --top-k 40
python sample.py --from-huggingface gpt2 --prompt "Once upon a time"
"""

import io
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax import corpus, runs, scripts
from gptjax.backend import describe, platform
from gptjax.config import check_seed
from gptjax.errors import InputError
from gptjax.generation import MAX_TOKENS, check_sampling, generate
from gptjax.huggingface import Pretrained, load_huggingface

LINE = "-" * 15
DEFAULTS: dict[str, Any] = {
    "num_samples": 1,
    "max_new_tokens": 500,
    "temperature": 0.8,
    "top_k": None,
    "top_p": None,
    "seed": 1337,
    "step": "best",
}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C."""
    return scripts.run_script("sample.py", run, argv)


def run(argv: list[str]) -> int:
    """The script's body; raises what `run_script` turns into a line."""
    flags = DEFAULTS | parse(argv)
    if flags["num_samples"] < 1:
        raise InputError(f"--num-samples ({flags['num_samples']}) must be at least 1")
    settings = {k: flags[k] for k in ("max_new_tokens", "temperature", "top_k", "top_p")}
    check_sampling(**settings)
    check_seed(flags["seed"])
    prompt = read_prompt(flags)
    platform()  # what is wrong with JAX's devices is said first
    loaded, what = load(flags)
    ids = loaded.tokenizer.encode(prompt)
    tell(f"{what}, on {describe()}")
    start = ids if len(ids) else np.array([loaded.tokenizer.start_id], np.int32)
    if flags["num_samples"] * (len(start) + flags["max_new_tokens"]) >= MAX_TOKENS:
        raise InputError(
            f"--num-samples ({flags['num_samples']}) of {len(start)} + {flags['max_new_tokens']} "
            f"tokens are too many: in all they must be below {MAX_TOKENS}"
        )
    prompts = np.broadcast_to(start, (flags["num_samples"], len(start)))
    key = jax.random.key(flags["seed"])
    samples = np.asarray(generate(loaded.model, loaded.params, prompts, key, **settings))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    for sample in samples:
        text = prompt + loaded.tokenizer.decode(sample[len(start) :])
        print(f"{text}\n{LINE}", flush=True)
    return 0


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


def parse(argv: list[str]) -> dict[str, Any]:
    """Flags to values; absent when not given."""
    parser = scripts.FlagParser("sample.py", __doc__ or "")
    parser.add("out_dir", str, "folder of the run [the newest under runs/]")
    parser.add("from_huggingface", str, "folder of a GPT-2 to sample from instead of a run")
    parser.add("prompt", str, "text to go on from [a newline]")
    parser.add("prompt_file", str, "file with the text to go on from")
    parser.add("num_samples", int, "samples to draw", DEFAULTS["num_samples"])
    parser.add("max_new_tokens", int, "tokens to add to the prompt", DEFAULTS["max_new_tokens"])
    parser.add("temperature", float, "below 1 is safer; 0 is greedy", DEFAULTS["temperature"])
    parser.add("top_k", int, "draw among the k likeliest tokens [all]")
    parser.add("top_p", float, "draw among the likeliest that make up this probability [all]")
    parser.add("seed", int, "seed of the samples", DEFAULTS["seed"])
    parser.add_argument(
        "--step", type=which_step, metavar="{best,latest,N}", help="checkpoint to read [best]"
    )
    return parser.parse(argv)


def which_step(text: str) -> str | int:
    """`best`, `latest` or a step's number."""
    return text if text in ("best", "latest") else scripts.whole_number(text)


def read_prompt(flags: dict[str, Any]) -> str:
    """The prompt itself, or the text of its file."""
    if "prompt" in flags and "prompt_file" in flags:
        raise InputError("--prompt and --prompt-file were both given: give one")
    if "prompt_file" in flags:
        path = Path(flags["prompt_file"])
        return corpus.decode(path, corpus.read_bytes(path))
    return flags.get("prompt", "")


def tell(line: str) -> None:
    """A line that is not the text."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
