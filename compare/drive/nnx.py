"""Wraps nnx_gpt.py in the interface of contestants.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp

from compare import nnx_gpt
from compare.contestants import CACHED, PACKED
from compare.drive.functional import packing
from compare.sampling import Settings
from compare.trees import Arrays, flatten, unflatten

if TYPE_CHECKING:
    from gptjax.config import RunConfig


class Nnx:
    """Holds the model and its optimizer, which hold their own state."""

    def __init__(self, run_config: RunConfig, tuned: bool) -> None:
        self.run_config, self.tuned = run_config, tuned
        self.key = jax.random.key(run_config.seed)
        self._adopt(*self._make())

    def _make(self) -> tuple[Any, Any]:
        model, optimizer = nnx_gpt.make(self.run_config, self.run_config.seed)
        if self.tuned:
            from compare import tuned

            tuned.nnx(model)
        return model, optimizer

    def _adopt(self, model: Any, optimizer: Any) -> None:
        self.model, self.optimizer, self._split = model, optimizer, None
        # As NNX's guide advises for loops, this traverses the objects once and not at each step.
        self._step = nnx.cached_partial(nnx_gpt.train_step, model, optimizer)
        self._steps = nnx.cached_partial(nnx_gpt.train_steps, model, optimizer)

    def set_weights(self, arrays: Arrays) -> None:
        model, optimizer = self._make()
        set_params(model, arrays)
        self._adopt(model, optimizer)

    def weights(self) -> Arrays:
        return flatten(nnx.to_pure_dict(nnx.state(self.model, nnx.Param)))

    def logits(self, x_BT: np.ndarray) -> np.ndarray:
        model = nnx.view(self.model, deterministic=True)
        return np.asarray(nnx_gpt.forward(model, jnp.asarray(x_BT)))

    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays:
        model = nnx.view(self.model, deterministic=True)
        return flatten(nnx.to_pure_dict(nnx.grad(nnx_gpt.loss)(model, *self.put(x_BT, y_BT))))

    def put(self, x: np.ndarray, y: np.ndarray) -> Any:
        return jnp.asarray(x), jnp.asarray(y)

    def step(self, batch: Any) -> Any:
        self._split = None
        return self._step(*batch)

    def steps(self, batches: Any) -> Any:
        self._split = None
        return self._steps(*batches)

    def generate(self, prompt_BT: np.ndarray, max_new_tokens: int, way: str = CACHED) -> np.ndarray:
        return np.asarray(nnx_gpt.generate_split(*self._sampling(prompt_BT, max_new_tokens, way)))

    def _sampling(self, prompt_BT: np.ndarray, max_new_tokens: int, way: str) -> Any:
        """Splits the model once and not at each call, as NNX's guide advises for loops."""
        if self._split is None:
            self._split = nnx.split(self.model)
        settings = Settings(max_new_tokens, 0.0, way in (CACHED, PACKED), packing(way))
        return *self._split, jnp.asarray(prompt_BT), self.key, settings

    def save(self, path: Path) -> None:
        nnx_gpt.save(path, self.model, self.optimizer)

    def load(self, path: Path) -> None:
        self._split = None
        nnx_gpt.load(path, self.model, self.optimizer)

    def trace_step(self, batch: Any) -> Any:
        return nnx_gpt.train_step.trace(self.model, self.optimizer, *batch).traced

    def trace_sampling(self, prompt_BT: np.ndarray, max_new_tokens: int) -> Any:
        return nnx_gpt.generate_split.trace(*self._sampling(prompt_BT, max_new_tokens, CACHED))

    def flatten_state(self) -> None:
        nnx.merge(*nnx.split((self.model, self.optimizer)))

    def other_ways(self) -> dict[str, Any]:
        """The ways that NNX's performance guide compares. Each trains a new model of its own."""
        model, optimizer = self._make()
        graphdef, state = nnx.split(self._make())

        @partial(jax.jit, static_argnums=0, donate_argnums=1)
        def functional(graphdef: Any, state: Any, x_BT: Any, y_BT: Any) -> Any:
            model, optimizer = nnx.merge(graphdef, state)
            loss = nnx_gpt.update(model, optimizer, x_BT, y_BT)
            return nnx.state((model, optimizer)), loss

        def step(batch: Any) -> Any:
            nonlocal state
            state, loss = functional(graphdef, state, *batch)
            return loss

        return {
            "nnx.jit": lambda batch: nnx_gpt.train_step(model, optimizer, *batch),
            "jax.jit, split and merge by hand": step,
        }


def set_params(model: Any, arrays: Arrays) -> None:
    """Replaces a model's parameters in place, by its own names."""
    state = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(state, unflatten(arrays, jnp.asarray))
    nnx.update(model, state)
