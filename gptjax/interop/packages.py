"""Optional packages for reading a Hugging Face folder, imported when one is read."""

import importlib
from typing import Any

from gptjax.errors import InputError
from gptjax.text.shell import python, quoted

# The extra `huggingface` in pyproject.toml.
PACKAGES = {"safetensors": "safetensors>=0.5,<1", "tokenizers": "tokenizers>=0.20,<1"}


def optional(name: str) -> Any:
    """Imports a module.

    Raises:
        InputError: its package is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise InputError(
            f"--from-huggingface needs the package {package}: "
            f"`{python()} -m pip install {quoted(PACKAGES[package])}`"
        ) from error
