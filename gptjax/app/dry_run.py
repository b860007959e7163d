"""`train.py --dry-run`: prints what a run would need, and writes and allocates nothing."""

import os
import re
from collections.abc import Callable
from typing import Any

import jax

from gptjax.app.flags import FlagParser, as_flag
from gptjax.backends import plan
from gptjax.backends.accelerators import ACCELERATORS
from gptjax.backends.distributed import Peers
from gptjax.backends.flops import train_flops
from gptjax.backends.mesh import MeshShape, check_shape
from gptjax.backends.sharding import make_mesh
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.model import GPT, num_params
from gptjax.presets import changed, preset_for
from gptjax.store import runs
from gptjax.text.tokenizers import with_vocab_size

MOST_DEVICES = 1024
MFU = 0.4  # assumed share of the peak FLOP/s; see docs/gpt2.md
COUNT = re.compile(r"--xla_force_host_platform_device_count=\d+")


def simulate(argv: list[str], command: str) -> None:
    """With --dry-run, has JAX use the CPU, with as many devices as --mesh names.

    Call this before JAX first uses a device.

    Raises:
        InputError: --mesh is not valid, or has too many devices.
    """
    parser = FlagParser(command, "", add_help=False)
    parser.add("dry_run", bool, "")
    parser.add("mesh", str, "")
    given = parser.parse_some(argv)
    if not given.get("dry_run"):
        return
    devices = MeshShape.parse(given["mesh"]).devices if "mesh" in given else 1
    if devices > MOST_DEVICES:
        raise InputError(
            f"--mesh {given['mesh']}: --dry-run simulates {MOST_DEVICES} devices at most"
        )
    flags = COUNT.sub("", os.environ.get("XLA_FLAGS", ""))
    flags += f" --xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = flags.strip()
    jax.config.update("jax_platforms", "cpu")


def check(options: dict[str, Any], given: dict[str, Any], peers: Peers) -> None:
    """Validates the flags that are given together with --dry-run.

    Raises:
        InputError: a flag makes sense only for a run that trains or resumes.
    """
    if not options["dry_run"]:
        if options["dry_run_tokens"] is not None:
            raise InputError("--dry-run-tokens needs --dry-run: add --dry-run, or leave it out")
        return
    names = "resume rewarm overwrite eval_only out_dir budget_minutes page".split()
    wrong = [as_flag(name) for name in names if options[name]]
    wrong += ["--init-from"] if "init_from" in given else []
    wrong += ["--num-processes"] if peers.count > 1 else []
    if wrong:
        raise InputError(f"--dry-run plans a new run and writes nothing: leave out {wrong[0]}")


def planned(given: dict[str, Any], mesh: str | None, say: Callable[[str], None]) -> RunConfig:
    """Returns the configuration that an accelerator would train.

    If the preset's batch size is not a multiple of the mesh's rows, it is rounded up to one. The
    number of sequences per update stays about the same.
    """
    given = with_vocab_size(given)
    run_config = changed(preset_for("gpu", given.get("preset")), given)
    if run_config.model_name != "gpt":
        raise InputError(
            f"--dry-run plans GPTs, but --preset {run_config.preset} is not a GPT: name another"
        )
    rows = MeshShape.parse(mesh).rows if mesh else 1
    train = run_config.train
    if "batch_size" in given or "micro_batch_size" in given or train.batch_size % rows == 0:
        return run_config
    batch_size = -(-train.batch_size // rows) * rows
    parts = max(1, round(train.sequences_per_update / batch_size))
    if "gradient_accumulation_steps" in given:
        parts = train.gradient_accumulation_steps
    say(
        f"batch: the preset's {train.batch_size} sequences cannot be divided among {rows} devices: "
        f"planned with --batch-size {batch_size} --gradient-accumulation-steps {parts}"
    )
    return run_config.replace(batch_size=batch_size, gradient_accumulation_steps=parts)


def show(
    given: dict[str, Any], mesh_text: str | None, tokens: int | None, say: Callable[[str], None]
) -> int:
    """Prints the plan; returns the exit status.

    Args:
        tokens: number of tokens to train on; None means all of the run's updates.
    """
    if tokens is not None and tokens < 1:
        raise InputError(f"--dry-run-tokens {tokens} must be at least 1")
    run_config = planned(given, mesh_text, say)
    cfg, train = run_config.model, run_config.train
    shape = MeshShape.parse(mesh_text) if mesh_text else MeshShape()
    check_shape(shape, cfg, train.sequences_at_once, shape.devices)
    mesh = make_mesh(shape) if shape.devices > 1 else None
    params = runs.abstract_params(GPT(cfg))
    say(f"plan of {run_config.preset} on {shape.devices} devices, {shape}; nothing is written")
    say(f"text: not read; a vocabulary of {cfg.vocab_size:,} ids is assumed")
    say(f"parameters: {num_params(params):,} ({_parts(params)})")
    each = run_config.tokens_per_update
    say(
        f"step: {each:,} tokens; each device computes {train.sequences_at_once // shape.rows} "
        "sequences at once"
    )
    flops, counted = train_flops(cfg), plan.xla_flops(run_config)
    say(
        f"FLOPs: {flops:.4g} per token, {flops * each:.4g} per step by the formula; XLA counts "
        f"{counted:.4g} per token ({counted / flops:.3f} of that, extrapolated from 2 blocks)"
    )
    state, gathered = plan.state_bytes(run_config, mesh), plan.gathered_bytes(run_config, mesh)
    without, with_weights = (
        plan.activation_bytes(run_config, shape.rows, has_weights=x) for x in (False, True)
    )
    say("bytes per device:")
    for what, size in {
        "parameters": state.params,
        "moments": state.moments,
        "gradients": state.gradients,
        "weights gathered from the other devices": gathered,
        "activations, flash attention": without,
        "activations, plain attention": with_weights,
        "XLA's temporaries (CPU estimate, float32)": plan.temporaries(run_config, mesh),
    }.items():
        say(f"    {what:<42}{size / 1e9:>10.3f} GB  {size:,}")
    sent = plan.communication(run_config, mesh)
    found = ", ".join(f"{kind} {size / 1e9:.3g} GB" for kind, size in sent.items() if size)
    say(f"communication per device and step: {found or 'none'}")
    total = tokens or each * train.max_iters
    say(f"{total:,} tokens, at {MFU:.0%} of the peak FLOP/s (assumed, not measured):")
    is_flash = cfg.dtype == "bfloat16" and cfg.dropout == 0
    for device in ACCELERATORS:
        if device.memory is None:
            continue
        activations = without if is_flash and not device.is_tpu else with_weights
        needed = sum(state) + gathered + activations
        fits = "fits" if needed <= device.memory else "does not fit"
        hours = flops * total / (device.flops * MFU * shape.devices) / 3600
        say(
            f"    {device.name:<10}{device.memory / 1e9:>5.0f} GB  {needed / 1e9:>9.2f} GB "
            f"{fits:<13}{hours:>10.3g} hours"
        )
    return 0


def _parts(params: Any) -> str:
    """Formats the parameter counts by part: the tables, the blocks and the rest."""
    sizes: dict[str, int] = {}
    for name, tree in params.items():
        part = "blocks" if name.startswith("block") else name
        sizes[part] = sizes.get(part, 0) + num_params(tree)
    return ", ".join(f"{part} {size:,}" for part, size in sizes.items())
