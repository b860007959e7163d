"""Training steps with each form of attention, with and without dropout; of a deep model, with its
blocks scanned and unrolled.
"""

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.accelerator_parts.shapes import shape_of
from benchmarks.accelerator_parts.training import Training, shares
from gptjax.backends import cpu
from gptjax.backends.execution import cudnn_attention, why_not_cudnn
from gptjax.backends.scanned import scan_blocks
from gptjax.config import GPTConfig
from gptjax.errors import RunError, one_line
from gptjax.model import Execution

Row = dict[str, Any]
# The GPU's kernel does not store the weights, so it has no dropout. The CPU's form, one block of
# queries at a time, skips three eighths of the scores on any machine.
FORMS = {
    "cuDNN's": cudnn_attention,
    "plain": None,
    "one block of queries at a time": cpu.attention,
}
UPDATES = 30


def measure(found: Callable[[Row], None], *, shapes: list[str], quick: bool) -> None:
    """Measures each shape and form: milliseconds per step, or the reason why there is no result."""
    for shape in shapes[:1] if quick else shapes:
        run_config = shape_of(shape, quick)
        for form, attention in FORMS.items():
            for blocks in (scan_blocks, None) if run_config.scans_layers else (None,):
                name = f"{form}, blocks scanned" if blocks else form
                row = {"key": f"{shape}, {name}", "shape": shape, "form": name}
                try:
                    if attention is cudnn_attention:
                        _check_cudnn(run_config.model)
                    execution = Execution(attention, blocks=blocks)
                    found(row | _steps(Training(run_config, execution), quick))
                except Exception as error:  # no such kernel, or out of memory: try the next form
                    found(row | {"why": one_line(error, 200, type(error).__name__)})


def _check_cudnn(model_config: GPTConfig) -> None:
    why = why_not_cudnn(model_config, jax.default_backend())
    if why:
        raise RunError(why)


def _steps(training: Training, quick: bool) -> Row:
    updates, turns = (2, 2) if quick else (UPDATES, 5)
    training.seconds(updates, updates)
    steps = [training.seconds(updates, updates) for _ in range(turns)]
    compiling = {"trace": training.trace_seconds, "compile": training.compile_seconds}
    return compiling | {"step": sorted(steps), "memory": training.memory}


def table(rows: list[Row], *, quick: bool, device: Row, **_: Any) -> str:
    """A line for each shape and form."""
    lines = [
        "Memory is of the program's arguments and temporaries, by XLA.",
        "",
        "| shape | attention | ms a step, median | tokens/s | MFU | of the measured product "
        "| GB | tracing | compiling |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if "why" in row:
            lines.append(f"| {row['shape']} | {row['form']} | {row['why']} | | | | | | |")
            continue
        step = row["step"][len(row["step"]) // 2]
        lines.append(
            f"| {row['shape']} | {row['form']} | {1000 * step:,.2f} "
            f"| {shares(shape_of(row['shape'], quick), step, device)} "
            f"| {(row['memory'] or 0) / 1e9:,.2f} | {row['trace']:.1f} s | {row['compile']:.1f} s |"
        )
    return "\n".join(lines)
