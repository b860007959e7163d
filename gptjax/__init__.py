"""A GPT in functional JAX, built the way the lecture builds it.

    from gptjax import GPT, GPTConfig, PRESETS, generate, load_run

Training has its own modules: `gptjax.training`, `gptjax.data`, `gptjax.optimizer`.
"""

from gptjax.config import GPTConfig, RunConfig, TrainConfig
from gptjax.errors import InputError, RunError
from gptjax.inference.generation import generate
from gptjax.model import GPT
from gptjax.presets import PRESETS
from gptjax.store.runs import Run, load_run
from gptjax.tokenizer import CharTokenizer
from gptjax.version import __version__

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
