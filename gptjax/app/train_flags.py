"""train.py's flags: parsing, the combinations that are refused, and the new run's configuration."""

import os
from pathlib import Path
from typing import Any

from gptjax.app import dry_run, foreign_flags, machines
from gptjax.app.budget import check_minutes
from gptjax.app.flags import FlagParser
from gptjax.app.machines import parts_of
from gptjax.app.source import PRESET, Source, starting_from
from gptjax.backends.devices import make_deterministic, platform
from gptjax.backends.distributed import ALONE, Peers
from gptjax.backends.execution import with_micro_batches
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.optimizer import trained_mask
from gptjax.presets import PRESETS, changed, preset_for
from gptjax.store import runs
from gptjax.text.reading import STANDARD_INPUT
from gptjax.text.shell import Commands
from gptjax.text.tokenizers import BPE_SIZE, with_vocab_size

HELP = """Trains a GPT on a text and writes a run that `{sample}` reads.

{train}                                    the preset that suits this machine
{train} --data my.txt --n-layer 4 --n-embd 128
{train} --resume                           continue the newest run
"""

# Flags that are not fields of a run's configuration.
OPTIONS = [
    *"resume rewarm overwrite eval_only out_dir budget_minutes mesh page dry_run".split(),
    "dry_run_tokens",
    *machines.FLAGS,
]


def parse(argv: list[str], commands: Commands) -> dict[str, Any]:
    """Parses the flags: values by field name, without the flags that were not given."""
    # The preset decides the other flags' defaults, and so what --help shows. A first parser
    # therefore reads only the flags that choose the preset.
    peek = FlagParser(commands.train, "", add_help=False)
    peek.add("preset", str, "")
    peek.add("init_from", Path, "")
    typed = peek.parse_some(argv)
    name = typed.get("preset") or (PRESET if "init_from" in typed else "")
    defaults = PRESETS.get(name) or preset_for(platform())
    help = HELP.format(**commands._asdict())
    parser = FlagParser(commands.train, help, foreign=foreign_flags.TRAIN)
    parser.add("preset", str, f"settings to start from: {', '.join(PRESETS)}", defaults.preset)
    parser.add("out_dir", Path, "folder of the run [runs/<preset>-<date>-<time>]")
    for name, what in {
        "resume": "continue the run in --out-dir, or the newest",
        "rewarm": "with --resume: restart the schedule from there, with a warm-up",
        "overwrite": "replace the run in --out-dir",
        "page": "at the end write page.html, which runs the model in a browser",
        "dry_run": "print what the run would need, for GPUs and TPUs by name, and do nothing else",
        "eval_only": "print the validation loss of the run in --out-dir, or of the newest",
    }.items():
        parser.add(name, bool, what)
    parser.add(
        "budget_minutes", float, "choose max_iters so that the run takes this long on this machine"
    )
    parser.add("dry_run_tokens", int, "with --dry-run: tokens to train on [those of max_iters]")
    machines.add_flags(parser)
    parser.add("vocab_size", int, f"ids of the vocabulary that --tokenizer bpe learns [{BPE_SIZE}]")
    parser.add_config(with_micro_batches(defaults, platform()))
    return parser.parse(argv)


def check_options(options: dict[str, Any], given: dict[str, Any], peers: Peers) -> None:
    """Validates combinations of flags.

    Raises:
        InputError: two flags exclude each other, or a flag needs another that is missing.
    """
    if options["out_dir"] == "":
        raise InputError("--out-dir is empty: give the path of a folder")
    goes_on = options["resume"] or options["eval_only"]
    if options["overwrite"] and goes_on:
        raise InputError(
            "--overwrite starts from step 0, so it cannot go with --resume or --eval-only"
        )
    if options["overwrite"] and "init_from" in given:
        places = [os.path.realpath(x) for x in (given["init_from"], options["out_dir"] or "")]
        if places[0] == places[1]:
            raise InputError(
                f"--overwrite would remove the weights that --init-from {given['init_from']} "
                "starts from: give another --out-dir"
            )
    dry_run.check(options, given, peers)
    if options["rewarm"] and not options["resume"]:
        raise InputError("--rewarm is for resuming a run: add --resume, or leave it out")
    if options["budget_minutes"] is not None:
        check_minutes(options["budget_minutes"])
        if goes_on or "max_iters" in given:
            raise InputError(
                "--budget-minutes chooses --max-iters for a new run: leave out one of them; with "
                "--resume or --eval-only, leave out --budget-minutes (--max-minutes limits time)"
            )
        if peers.count > 1:
            raise InputError(
                "--budget-minutes measures one process alone: give --max-iters or --max-minutes"
            )
    if options["page"] and options["eval_only"]:
        raise InputError("--eval-only writes nothing: leave out --page")
    if options["page"] and peers.count > 1:
        raise InputError("--page is for one process: leave it out, and write the page later")
    if peers.count > 1 and given.get("data") == STANDARD_INPUT:
        raise InputError("--data -: each process must read the text: give the path of a file")


def new_config(
    given: dict[str, Any],
    mesh: str | None = None,
    peers: Peers = ALONE,
    source: Source | None = None,
) -> RunConfig:
    """Returns the configuration of a new run: its preset, changed by the flags.

    Args:
        source: the weights that the run starts from; their model replaces the preset's.
    """
    if given.get("deterministic"):
        make_deterministic()
    given = with_vocab_size(given)
    preset = preset_for(platform(), given.get("preset") or (PRESET if source else None))
    run_config = starting_from(source, preset, given) if source else changed(preset, given)
    if "micro_batch_size" not in given:
        parts = parts_of(mesh, run_config.train.batch_size, peers)
        run_config = with_micro_batches(run_config, platform(), parts)
    if run_config.train.trainable != "all":  # fails if it names an unknown parameter
        trained_mask(runs.abstract_params(runs.make_model(run_config)), run_config.train.trainable)
    return run_config
