"""Converts nested trees of arrays to flat dicts, and back."""

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def flatten(tree: Any) -> Arrays:
    """Converts {"a": {0: leaf}} to {"a/0": NumPy array}."""
    flat: Arrays = {}
    for name, value in tree.items():
        if hasattr(value, "items"):
            flat |= {f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[str(name)] = np.asarray(value)
    return flat


def unflatten(arrays: Arrays, convert: Any) -> Any:
    """The inverse of `flatten`, with `convert` applied to each array; all names are strings."""
    tree: dict[str, Any] = {}
    for path, leaf in arrays.items():
        *parents, last = path.split("/")
        at = tree
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = convert(leaf)
    return tree
