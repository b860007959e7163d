"""Finds the collective operations of a compiled program, and their bytes on each device.

A loop's body is counted once, no matter how often it runs.
"""

import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "s16": 2, "u16": 2, "f16": 2}
BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
# `%x = f32[8,2]{1,0} all-gather(...)`, or a tuple of types if several arrays are sent at once.
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_TYPE = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One array that an operation writes on each device.

    Attributes:
        kind: one of KINDS.
        dtype: XLA's name of the dtype, such as `f32`.
        size: bytes.
    """

    kind: str
    dtype: str
    size: int


def collectives(program: str) -> list[Collective]:
    """Finds the collective operations in a compiled program's text, `compiled.as_text()`."""
    found = []
    for types, kind in _OPERATION.findall(program):
        for dtype, shape in _TYPE.findall(types):
            count = math.prod(int(n) for n in shape.split(",") if n)
            found.append(Collective(kind, dtype, count * BYTES[dtype]))
    return found
