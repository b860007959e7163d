"""Compares training steps with PyTorch's, eager and compiled, in separate processes, in turns."""

import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarks import train_step
from benchmarks.accelerator_parts.shapes import shape_of
from benchmarks.accelerator_parts.training import shares
from benchmarks.steps import Entry
from benchmarks.steps import measure as measure_steps

Row = dict[str, Any]


def measure(found: Callable[[Row], None], *, shape: str, quick: bool) -> None:
    """Measures a row for each contestant, updated after each turn."""
    entries = [Entry("gptjax", "bfloat16"), *_torch_entries(shape, quick)]

    def tell(rows: list[Row]) -> None:
        for row in rows:
            found(row | {"key": row["name"]})

    measure_steps(
        shape_of(shape, quick),
        entries,
        turns=1 if quick else 5,
        seconds=0.1 if quick else 1.0,
        tell=train_step.tell,
        found=tell,
    )


def _torch_entries(shape: str, quick: bool) -> list[Entry]:
    """PyTorch's entries, if it is installed and finds an accelerator. A toy run has one, on a CPU.

    Another process checks that, because PyTorch would permanently take some of the GPU's memory.
    """
    if find_spec("torch") is None:
        return []
    if quick:
        return [Entry("torch", "bfloat16")] if shape == "shakespeare" else []
    ask = "import torch; print(torch.cuda.is_available())"
    said = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True).stdout
    if said.strip() != "True":
        return []
    return [Entry("torch", "bfloat16"), Entry("torch-compile", "bfloat16")]


def table(rows: list[Row], *, shape: str, quick: bool, device: Row) -> str:
    """The steps of one shape. Utilisation counts the model's operations without recomputation."""
    run_config = shape_of(shape, quick)
    lines = [
        f"Batch {run_config.train.batch_size} x {run_config.model.block_size}, dropout "
        f"{run_config.model.dropout}, bfloat16. The first step includes compiling.",
        "",
        "| | ms a step, median | range | tokens/s | MFU | of the measured product | peak MB "
        "| first step |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if not row["step"]:
            lines.append(f"| {row['name']} | {row.get('why', 'starting')} | | | | | | |")
            continue
        step = statistics.median(row["step"])
        lines.append(
            f"| {row['name']} | {1000 * step:,.2f} "
            f"| {1000 * min(row['step']):,.2f} to {1000 * max(row['step']):,.2f} "
            f"| {shares(run_config, step, device)} "
            f"| {row['memory']:,.0f} | {row['compile']:.1f} s |"
        )
    ours = next((row for row in rows if row["name"].startswith("gptjax")), {})
    attention = f"Attention: {ours['attention']}." if "attention" in ours else ""
    twin = (
        ""
        if quick or len(rows) > 1
        else " PyTorch is left out: it is not installed, or sees no GPU."
    )
    return "\n".join([*lines, "", attention + twin])
