"""Packs the parameters of a run into bytes for the page."""

from typing import Any, Literal

import numpy as np
from flax.traverse_util import flatten_dict

from gptjax.errors import InputError

PageDtype = Literal["float16", "float32"]


def pack(params: Any, dtype: PageDtype) -> tuple[list[dict[str, Any]], bytes]:
    """Returns the tensors' paths and shapes, and their bytes, little endian, in the same order.

    Raises:
        InputError: a number is not finite, or too large for float16.
    """
    flat = {"/".join(path): np.asarray(x) for path, x in flatten_dict(params).items()}
    tensors, parts = [], []
    for path in sorted(flat):
        with np.errstate(over="ignore"):  # the check below names the tensor that overflows
            array = flat[path].astype(np.dtype(dtype).newbyteorder("<"))
        if not np.isfinite(flat[path]).all():
            raise InputError(f"{path} contains numbers that are not finite: choose another --step")
        if not np.isfinite(array).all():
            raise InputError(f"{path} contains numbers too large for float16: give --dtype float32")
        tensors.append({"path": path, "shape": list(array.shape)})
        parts.append(array.tobytes())
    return tensors, b"".join(parts)


def rounded(params: Any) -> Any:
    """Rounds parameters to float16 as the page does, and converts them back to float32."""

    def round_one(x: Any) -> Any:
        if isinstance(x, dict):
            return {name: round_one(part) for name, part in x.items()}
        return np.asarray(x).astype(np.float16).astype(np.float32)

    return round_one(params)
