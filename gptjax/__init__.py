"""A GPT in functional JAX, built the way the lecture builds it.

    from gptjax import GPT, GPTConfig, PRESETS, generate, load_run

Training has its own modules: `gptjax.training`, `gptjax.data`, `gptjax.optimizer`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gptjax.version import __version__

if TYPE_CHECKING:
    from gptjax.config import GPTConfig, RunConfig, TrainConfig
    from gptjax.errors import InputError, RunError
    from gptjax.inference.generation import generate
    from gptjax.model import GPT
    from gptjax.presets import PRESETS
    from gptjax.store.runs import Run, load_run
    from gptjax.tokenizer import CharTokenizer

__all__ = [
    "GPT",
    "PRESETS",
    "CharTokenizer",
    "GPTConfig",
    "InputError",
    "Run",
    "RunConfig",
    "RunError",
    "TrainConfig",
    "__version__",
    "generate",
    "load_run",
]
# Imported at their first use, because JAX raises ValueError at import for an environment variable
# that it cannot read: a command must be able to say so in one line.
_MODULES = {
    "config": ("GPTConfig", "RunConfig", "TrainConfig"),
    "errors": ("InputError", "RunError"),
    "inference.generation": ("generate",),
    "model": ("GPT",),
    "presets": ("PRESETS",),
    "store.runs": ("Run", "load_run"),
    "tokenizer": ("CharTokenizer",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"gptjax.{module}"), name)
    try:  # `gptjax.training` after `import gptjax`
        return import_module(f"gptjax.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module 'gptjax' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
