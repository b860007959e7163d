"""Sets up a run: its folder, its configuration, its text and its mesh."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from gptjax.app.budget import with_budget
from gptjax.app.machines import choose_mesh
from gptjax.app.resume import resumed_config
from gptjax.app.source import Source
from gptjax.backends.distributed import Peers
from gptjax.config import RunConfig
from gptjax.store import runs
from gptjax.store.folders import taken
from gptjax.store.lock import locked
from gptjax.text.splitting import Of, Texts, read_texts, with_text


@contextlib.contextmanager
def folder_of(
    options: dict[str, Any], new: RunConfig | None, peers: Peers, warn: Callable[[str], None]
) -> Iterator[Path]:
    """Yields the run's folder, locked against other processes. Process 0 makes it for a new run."""
    out_dir = Path(options["out_dir"]) if options["out_dir"] else None
    if not peers.leads:
        yield Path(peers.agree(None))
        return
    if new is None:
        there = out_dir or runs.newest_run()
        runs.read_run(there)  # fails if the folder holds no run, before the lock file is made
        folder = nullcontext(there)
    else:
        folder = taken(out_dir, new.preset, bool(options["overwrite"]))
    with folder as path, nullcontext() if options["eval_only"] else locked(path, warn):
        yield path


def begin(
    path: Path,
    new: RunConfig,
    options: dict[str, Any],
    data_dir: Path,
    began: float,
    peers: Peers,
    say: Callable[[str], None],
    source: Source | None = None,
) -> tuple[RunConfig, Texts, Mesh | None]:
    """Reads a new run's text, chooses its mesh, and writes the run's files, except checkpoints.

    Args:
        source: the weights that the run starts from; their tokenizer encodes the text.
    """
    run = Of(path, source.tokenizer, is_new=True) if source else None
    texts = read_texts(new, data_dir, say, run=run)
    run_config = with_text(new, texts)
    mesh = choose_mesh(options["mesh"], run_config, peers)
    if options["budget_minutes"] is not None:
        run_config = with_budget(run_config, texts, options["budget_minutes"], began, say, mesh)
    overwrite = bool(options["overwrite"])
    runs.check_free(path, overwrite)  # another process may have written a run meanwhile
    if overwrite:
        runs.remove_run(path)
    runs.write_run(path, run_config, texts.tokenizer)
    return run_config, texts, mesh


def go_on(
    path: Path,
    given: dict[str, Any],
    options: dict[str, Any],
    new: RunConfig | None,
    data_dir: Path,
    peers: Peers,
    say: Callable[[str], None],
) -> tuple[RunConfig, Texts, Mesh | None]:
    """Returns the configuration, text and mesh of the run in a folder.

    Args:
        new: the configuration of a new run, which process 0 has written; None for a resume.
    """
    stored, tokenizer = runs.read_run(path)
    run_config = stored
    if new is None:
        run_config = resumed_config(path, given, bool(options["eval_only"]), say)
    run = Of(path, tokenizer)
    texts = read_texts(run_config, data_dir, say, is_stored="data" not in given, run=run)
    run_config = with_text(run_config, texts)
    return run_config, texts, choose_mesh(options["mesh"], run_config, peers)
