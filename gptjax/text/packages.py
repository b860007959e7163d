"""Imports optional packages where they are used."""

import importlib
from typing import Any

from gptjax.errors import InputError
from gptjax.text.shell import python, quoted

# The extras `huggingface` and `data` in pyproject.toml.
PACKAGES = {
    "safetensors": "safetensors>=0.5,<1",
    "tokenizers": "tokenizers>=0.20,<1",
    "zstandard": "zstandard>=0.23,<1",
}


def optional(name: str, what: str) -> Any:
    """Imports a module.

    Args:
        what: the flag or file that needs the package, for the message.

    Raises:
        InputError: the package is not installed; the message has the command to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise InputError(
            f"{what} needs the package {package}: "
            f"`{python()} -m pip install {quoted(PACKAGES[package])}`"
        ) from error
