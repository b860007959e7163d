"""The contestants, and the interface through which all of them are measured and compared.

Importing this file imports no contestant, so a contestant's process loads only its own library.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from compare.trees import Arrays

if TYPE_CHECKING:
    from gptjax.config import RunConfig


class About(NamedTuple):
    """The description of a contestant on the page.

    Attributes:
        title: its name in tables and pictures.
        design: `linen`, `nnx`, `plain` or `torch`; decides the file and the names of the weights.
        functional: True for values in, values out; False for objects that hold their state.
        tuned: whether it trains with gptjax's CPU products and attention (tuned.py).
        needs: modules that must be installed.
    """

    title: str
    design: str
    functional: bool
    tuned: bool = False
    needs: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file that implements it."""
        return f"{self.design}_gpt.py"

    @property
    def on_jax(self) -> bool:
        """Whether XLA compiles it."""
        return self.design != "torch"


TORCH = ("torch", "safetensors")
CONTESTANTS = {
    "linen": About("Linen", "linen", True),
    "nnx": About("NNX", "nnx", False),
    "plain": About("plain JAX", "plain", True),
    "linen-tuned": About("tuned Linen", "linen", True, True),
    "nnx-tuned": About("tuned NNX", "nnx", False, True),
    "plain-tuned": About("tuned plain JAX", "plain", True, True),
    "torch": About("PyTorch", "torch", False, needs=TORCH),
    "torch-compile": About("compiled PyTorch", "torch", False, needs=TORCH),
}
# One of each design. The others sample, save and start with the same code.
BASIC = ("linen", "nnx", "plain", "torch")
INSTALL = 'pip install -e ".[compare]"'


def missing(name: str) -> str | None:
    """Why a contestant cannot take part, and what to install; None if it can."""
    for module in CONTESTANTS[name].needs:
        if importlib.util.find_spec(module) is None:
            return f"{CONTESTANTS[name].title} is left out: {module} is not installed ({INSTALL})"
    return None


# Ways to generate text: with a cache; without one, by a whole forward pass for each token; with a
# cache and packed weights of the heads; with gptjax.generate, which users call.
CACHED, WHOLE, PACKED, SERVED = "cached", "whole", "packed", "served"


def ways_to_sample(name: str) -> tuple[str, ...]:
    """The ways to sample to measure for a contestant; none if it samples with another's code."""
    if name not in BASIC:
        return ()
    packed = (PACKED,) if CONTESTANTS[name].on_jax else ()
    return (CACHED, WHOLE, *packed, *((SERVED,) if name == "linen" else ()))


class Contestant(Protocol):
    """A model, its optimizer's state, and functions that use them. Ids are NumPy int32, (B, T)."""

    def set_weights(self, arrays: Arrays) -> None: ...  # by native names; resets the optimizer
    def weights(self) -> Arrays: ...
    def logits(self, x_BT: np.ndarray) -> np.ndarray: ...
    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays: ...
    def put(self, x: np.ndarray, y: np.ndarray) -> Any: ...  # a batch, or N batches, in its memory
    def step(self, batch: Any) -> Any: ...  # one update; the loss, perhaps not computed yet
    def steps(self, batches: Any) -> Any: ...  # N updates, in one dispatch on JAX; the losses
    def generate(  # greedy
        self, prompt_BT: np.ndarray, max_new_tokens: int, way: str = CACHED
    ) -> np.ndarray: ...
    def save(self, path: Path) -> None: ...
    def load(self, path: Path) -> None: ...


class Compiled(Contestant, Protocol):
    """A contestant on JAX, whose programs can be inspected."""

    def trace_step(self, batch: Any) -> Any: ...  # a jax.stages.Traced of `step`
    def trace_sampling(self, prompt_BT: np.ndarray, max_new_tokens: int) -> Any: ...
    def flatten_state(self) -> None: ...  # what the host does with the state at each step
    def other_ways(self) -> dict[str, Any]: ...  # to call the step: functions of a batch


def build(name: str, run_config: RunConfig) -> Any:
    """Builds a contestant with new weights: a `Contestant`, and on JAX also a `Compiled`.

    Args:
        run_config: a RunConfig or, except for Linen, anything hashable with its fields.

    Raises:
        ConfigError: only this project's own training supports a setting.
    """
    about = CONTESTANTS[name]
    has = {"gradient_accumulation_steps": 1, "optimizer": "adamw"}
    for field, only in has.items():
        value = getattr(run_config.train, field)
        if about.design != "linen" and value != only:
            from gptjax.errors import ConfigError

            raise ConfigError(field, value, f"must be {only}: {name} has no other")
    if about.design == "torch":
        from compare.drive.torch import Torch

        return Torch(run_config, compiled=name == "torch-compile")
    if about.design == "nnx":
        from compare.drive.nnx import Nnx

        return Nnx(run_config, about.tuned)
    from compare.drive.functional import Functional

    return Functional(about.design, run_config, about.tuned)
