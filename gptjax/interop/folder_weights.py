"""Reads the weights of a Hugging Face folder: one file or shards, which may be links into a cache.

Only safetensors is read. Other formats can run code when they are opened; the error says how to
convert them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from gptjax.errors import InputError
from gptjax.files import read_json
from gptjax.text.packages import optional
from gptjax.text.shell import joined, python, quoted

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# File name endings of weights in other formats.
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".safetensors")
LFS_BEGINNING = b"version https://git-lfs"

# Short names of GPT-2 models on the hub, as users type them.
HUB = {name: f"openai-community/{name}" for name in ("gpt2-medium", "gpt2-large", "gpt2-xl")} | {
    "gpt2": "openai-community/gpt2",
    "distilgpt2": "distilbert/distilgpt2",
}
CONVERT = (
    "import sys; from transformers import GPT2LMHeadModel as M; "
    "M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])"
)


def download(folder: Path, *names: str) -> str:
    """The command that downloads files of GPT-2 into `folder`, for use in a message."""
    parts = folder.parts
    is_hub_id = len(parts) == 2 and not folder.is_absolute() and parts[0] not in ("..", "runs")
    repository = HUB.get(folder.name) or (str(folder) if is_hub_id else HUB["gpt2"])
    command = joined("hf", "download", repository, *names, "--local-dir", folder)
    return f"`{command}` (`hf` comes with `{python()} -m pip install -U huggingface_hub`)"


def check_folder(folder: Path) -> None:
    """Checks that `folder` is the folder of a model.

    Raises:
        InputError: the folder is missing, is a file, or is the hub's cache, which contains the
            model's folder; the message says what to give instead.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise InputError(
            f"{folder}: {problem}; download a GPT-2 with "
            + download(folder, "config.json", WEIGHTS, "tokenizer.json")
        )
    snapshots = sorted((folder / "snapshots").glob("*/config.json"))
    if snapshots and not (folder / "config.json").exists():
        newest = max(snapshots, key=lambda path: path.stat().st_mtime).parent
        raise InputError(f"{folder} is the hub's cache of a model: give {quoted(newest)}")


def read_weights(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Returns the path of the weights, for messages, and all entries.

    Raises:
        InputError: the weights are missing or cannot be read; the message names the file.
    """
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS, _load(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return folder / INDEX, _load_shards(folder)
    optional("safetensors.numpy", f"reading {folder}")  # a missing package before a missing file
    raise InputError(_why_none(folder))


def _load(path: Path) -> dict[str, np.ndarray]:
    safetensors = optional("safetensors.numpy", f"reading {path}")
    try:
        with path.open("rb") as file:
            if file.read(len(LFS_BEGINNING)) == LFS_BEGINNING:
                command = joined("git", "-C", path.parent, "lfs", "pull")
                raise InputError(f"{path} is a Git LFS pointer, not the weights: run `{command}`")
        return safetensors.load_file(path)
    except InputError:
        raise
    except Exception as error:  # the package raises its own exceptions, and numpy's
        raise InputError(f"{path} cannot be read: {error}") from error


def _load_shards(folder: Path) -> dict[str, np.ndarray]:
    """Loads the entries of all shards that the index names. Each must be a file in the folder."""
    path = folder / INDEX
    places: Any = read_json(path, links=True).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
        raise InputError(f"{path}: weight_map must name a file for each entry")
    shards = sorted(set(places.values()))
    for name in shards:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise InputError(
                f"{path} names {name!r}: a shard must be a .safetensors file in the same folder"
            )
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}, which {INDEX} names: download it again")
    entries: dict[str, np.ndarray] = {}
    for name in shards:
        found = _load(folder / name)
        if twice := sorted(found.keys() & entries.keys()):
            raise InputError(f"{folder / name}: entry {twice[0]} is in another shard too")
        entries |= found
    if missing := sorted(places.keys() - entries.keys()):
        raise InputError(
            f"{folder / places[missing[0]]} has no entry {missing[0]}, although {INDEX} lists it"
        )
    return entries


def _why_none(folder: Path) -> str:
    """Says which files the folder has instead of safetensors, and what to do about it."""
    others = sorted(p.name for p in folder.glob("*") if p.suffix in OTHER_WEIGHTS)
    gone = [name for name in (WEIGHTS, INDEX) if (folder / name).is_symlink()]
    if gone:
        target = (folder / gone[0]).readlink()
        return f"{folder / gone[0]} is a link to {target}, which does not exist: download it again"
    if any(name.startswith("pytorch_model") and name.endswith(".bin") for name in others):
        command = f"{python()} -c {joined(CONVERT, folder)}"
        return (
            f"{folder} has its weights as pytorch_model.bin, a pickle, which can run code and is "
            f"never opened here; if you trust it, `{command}` writes {WEIGHTS} beside it (with "
            f"`{python()} -m pip install torch transformers`)"
        )
    found = f" (it has {', '.join(others)})" if others else ""
    return f"{folder} has no {WEIGHTS}{found}; GPT-2's is fetched by {download(folder, WEIGHTS)}"
