"""The device: what it is, and how fast it multiplies large matrices."""

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.arithmetic import matmul_rate
from compare.measuring.machine import versions
from gptjax.backends.accelerators import peak
from gptjax.backends.devices import describe, platform


def measure(found: Callable[[dict[str, Any]], None], *, quick: bool) -> None:
    """Measures one row: the device, its memory by JAX, all versions, and the rate of a product."""
    device = jax.devices()[0]
    row = {
        "key": "device",
        "kind": device.device_kind,
        "platform": platform(),
        "text": describe(),
        "memory": (device.memory_stats() or {}).get("bytes_limit"),
        "peak_flops": peak(device.device_kind),
        "versions": versions(),
    }
    found(row)
    size = 256 if quick else 2048 if platform() == "cpu" else 8192
    rate = matmul_rate("bfloat16", size, seconds=0.1 if quick else 1.0)
    found(row | {"matmul_flops": rate})


def table(rows: list[dict[str, Any]], **_: Any) -> str:
    """The device in a few sentences."""
    (row,) = rows
    measured, sheet, memory = (row.get(x) for x in ("matmul_flops", "peak_flops", "memory"))
    sentences = [
        f"{row['text']}.",
        ", ".join(f"{name} {version}" for name, version in row["versions"].items()) + ".",
        f"Bfloat16 matrix products, TFLOP/s: {_tera(measured)} measured, {_tera(sheet)} in its "
        "data sheet.",
    ]
    if memory:
        sentences.append(f"JAX may use {memory / 2**30:.1f} GiB of its memory.")
    return " ".join(sentences)


def _tera(flops: float | None) -> str:
    return f"{flops / 1e12:,.1f}" if flops else "unknown"
