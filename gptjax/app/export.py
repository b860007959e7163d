"""The command `export`: writes a run's model as a folder that other implementations can load."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gptjax.app.flags import FlagParser
from gptjax.app.script import run_script, warner
from gptjax.errors import InputError
from gptjax.files import whole_file
from gptjax.interop.exports import (
    LOADERS,
    Entries,
    Format,
    check_format,
    files_of,
    write_entries,
)
from gptjax.model import num_params
from gptjax.store import runs
from gptjax.store.listing import list_checkpoints

HELP = """Writes the model of a run as a folder that transformers, nanoGPT or the lecture's code
loads.

{command} runs/big --to huggingface --out folder
{command} runs/big --to nanogpt --out folder --step latest

RUN is the folder of a run. Weights are written as safetensors; folder/README.md shows how to load
them.
"""


def main(argv: list[str] | None = None, *, command: str = "gptjax export") -> int:
    """Exports the run that the arguments name.

    Args:
        argv: the run's folder and flags; None means the process's arguments.
        command: what the user typed, for help and errors.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong input.
    """
    return run_script(command, partial(run, command=command), argv)


def run(argv: list[str], command: str) -> int:
    """The command's body. `run_script` turns the errors it raises into one line."""
    parser = FlagParser(command, HELP.format(command=command))
    parser.usage = "%(prog)s [flags] RUN"
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder of the run")
    parser.add("to", Format, "format of the folder")
    parser.add("out", Path, "folder to write; it must be new or empty")
    parser.add_step("export")
    given = parser.parse(argv)
    for name in ("to", "out", "run"):
        if not given.get(name):
            raise InputError(f"the command is `{command} RUN --to FORMAT --out DIR`")
    out = Path(given["out"])
    check_free(out)
    path, to = Path(given["run"]), given["to"]
    run_config, _ = runs.read_run(path)
    if run_config.model_name != "gpt":
        raise InputError(f"{path} is a {run_config.model_name}: only a GPT can be exported")
    check_format(to, run_config.model)
    loaded = runs.load_run(path, given.get("step", "best"), tell=warner(command))
    files = files_of(to, loaded.config.model, loaded.params, loaded.tokenizer)
    files["README.md"] = card(path, loaded, to)
    write_folder(out, files)
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    print(f"{out}: step {loaded.step}, {size:.1f} MB; README.md says how to load it", flush=True)
    return 0


def check_free(out: Path) -> None:
    """Checks that a new folder overwrites nothing.

    Raises:
        InputError: `out` is a file, a link, or a folder that is not empty.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out} is not a folder: give the path of a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty: give the path of a new folder")


def write_folder(out: Path, files: Mapping[str, str | Entries]) -> None:
    """Writes a folder, wholly or not at all: writes a temporary folder and renames it.

    Raises:
        OSError: the folder cannot be written; `out` is unchanged.
    """
    out = Path(os.path.abspath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        for name, content in files.items():
            with whole_file(temporary / name) as file:
                if isinstance(content, str):
                    file.write(content.encode())
                else:
                    write_entries(file, content)
        temporary.chmod(0o755)  # mkdtemp's folders are private
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def card(path: Path, run: runs.Run, to: Format) -> str:
    """Returns the folder's README.md: what the model is, its loss, and how to load it."""
    config, train = run.config, run.config.train
    checkpoints, _ = list_checkpoints(path / runs.CHECKPOINTS)
    losses = [c.val_loss for c in checkpoints if c.step == run.step and c.val_loss is not None]
    loss = f"{losses[0]:.4f} nats per token" if losses else "not measured at this step"
    text = Path(config.data).name
    origin = (
        f"the weights in {Path(config.init_from).name}" if config.init_from else "random weights"
    )
    head = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
    return f"""{head if to == "huggingface" else ""}# {path.resolve().name}

A GPT trained with gptjax from {origin}.

| | |
|---|---|
| text | {text} (sha256 {config.data_sha256}) |
| tokens | {run.tokenizer.vocab_size:,} ids ({run.tokenizer.kind}) |
| parameters | {num_params(run.params):,} |
| blocks, heads, width, context | {config.model.n_layer}, {config.model.n_head}, \
{config.model.n_embd}, {config.model.block_size} |
| training | {run.step:,} updates of {config.tokens_per_update:,} tokens, {train.optimizer}, \
peak learning rate {train.learning_rate:g} |
| validation loss | {loss} |

Load it with

```python
{LOADERS[to]}```

Licence: none is given yet. The licences of the text, and of the weights that training started from,
apply to what you publish.
"""
