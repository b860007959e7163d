"""Tokens per second of sample.py's program, with the cache, in bfloat16."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from benchmarks import sampling as benchmark
from benchmarks.accelerator_parts.shapes import shape_of
from gptjax.inference.adapt import with_dtype
from gptjax.model import GPT
from gptjax.training import init_params

Row = dict[str, Any]
BATCHES = (1, 16, 256)


def measure(found: Callable[[Row], None], *, shape: str, quick: bool) -> None:
    """A row for each batch size."""
    model = GPT(shape_of(shape, quick).model)
    params = jax.jit(partial(init_params, model))(jax.random.key(0))
    model, params = with_dtype(model, params, "bfloat16")
    runs: dict[str, benchmark.Run] = {"gptjax": partial(benchmark.cached, model, params)}
    new, repeats = (8, 1) if quick else (benchmark.NEW, 5)
    for batch in BATCHES[:1] if quick else BATCHES:
        for row in benchmark.compare(runs, batch, new, repeats):
            found({"key": str(batch), **row})


def table(rows: list[Row], **_: Any) -> str:
    """A line for each batch size."""
    lines = [
        "| rows at once | tokens/s, median | range | ms until the first token | first call |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        first = 1000 * statistics.median(row["first_token_seconds"])
        lines.append(
            f"| {row['batch']} | {row['tokens_per_second']:,.0f} "
            f"| {row['slowest']:,.0f} to {row['fastest']:,.0f} | {first:,.1f} "
            f"| {row['first_call_seconds']:.1f} s |"
        )
    return "\n".join(lines)
