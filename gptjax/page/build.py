"""Builds one HTML file that shows a run and runs its model: `build_page`.

The page makes no requests: weights, tokenizer, code and style are in the file, and its
Content-Security-Policy forbids every request. The policy allows scripts only by their hashes, so
text from a run can never run as a script.
"""

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.errors import InputError
from gptjax.model import num_params
from gptjax.page.data import describe
from gptjax.page.weights import PageDtype, pack
from gptjax.store import runs

# Limit for the weights, which are nearly all of a page. A browser opens such a page in a few
# seconds; a much larger page can fail.
MAX_BYTES = 64 * 10**6

# The files are ES modules, so that editors, linters and Node understand them. In the page, each
# list becomes one script, in this order, without imports and exports.
WORKER = (
    *("names.mjs", "layers.mjs", "model.mjs", "sampling.mjs", "weights.mjs"),
    *("analysis.mjs", "worker.mjs"),
)
PAGE = (
    *("names.mjs", "tokenizer.mjs", "dom.mjs", "charts.mjs", "service.mjs", "text.mjs"),
    *("write.mjs", "look.mjs", "follow.mjs", "parts.mjs", "run.mjs", "page.mjs"),
)
_IMPORT = re.compile(r"^import\s[^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(async |function|class|const|let)\b)", re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def build_page(path: Path, run: runs.Run, dtype: PageDtype = "float16") -> str:
    """Builds the page of a run.

    Args:
        path: the run's folder, for its metrics and samples.
        run: the run from `runs.load_run`, with float32 parameters.
        dtype: dtype of the weights in the page; float16 halves its size. The page computes in
            float32 with the rounded weights.

    Raises:
        InputError: a weight is not finite, or the weights are larger than `MAX_BYTES`.
    """
    check_size(num_params(run.params), dtype)
    tensors, weights = pack(run.params, dtype)
    data = {**describe(path, run), "tensors": tensors, "dtype": dtype}
    style, script = source("style.css"), f'"use strict";\n{joined(PAGE)}start();\n'
    return filled(
        source("page.html"),
        policy=policy(script, style),
        style=style,
        data=as_script_data(data),
        weights=base64.b64encode(weights).decode(),
        worker=f'"use strict";\n{joined(WORKER)}serve(self);\n',
        script=script,
    )


def check_size(parameters: int, dtype: PageDtype) -> None:
    """Checks that browsers can open a page with this many parameters.

    Raises:
        InputError: the page would be too large.
    """
    size = parameters * np.dtype(dtype).itemsize * 4 // 3  # base64
    if size > MAX_BYTES:
        is_exact = dtype == "float32"
        way = "--dtype float16 halves it" if is_exact else "sample.py runs models of this size"
        raise InputError(
            f"the page of {parameters:,} parameters would have {size / 1e6:.0f} MB, and browsers "
            f"open at most {MAX_BYTES / 1e6:.0f} MB reliably: {way}"
        )


def policy(script: str, style: str) -> str:
    """The Content-Security-Policy: allows this script, its worker, this style, and no requests."""
    return (
        "default-src 'none'; "
        f"script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def joined(names: tuple[str, ...]) -> str:
    """Joins modules into one script."""
    modules = (source(name) for name in names)
    return "".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in modules)


def source(name: str) -> str:
    """The text of a file of this package."""
    return files("gptjax.page").joinpath(name).read_text(encoding="utf-8")


def as_script_data(value: Any) -> str:
    """Encodes JSON so that no HTML parser takes its strings for markup."""
    text = json.dumps(value, allow_nan=False)  # in ASCII
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def filled(template: str, **values: str) -> str:
    """Replaces each `{{name}}` in the template. The values are not searched again."""
    return _PLACE.sub(lambda place: values[place[1]], template)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
