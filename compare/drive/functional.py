"""Wraps linen_gpt.py and plain_gpt.py in the interface of contestants.py."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import numpy as jnp

from compare.contestants import CACHED, PACKED, SERVED
from compare.sampling import Settings
from compare.trees import Arrays, flatten, unflatten

if TYPE_CHECKING:
    from gptjax.config import RunConfig


class Functional:
    """Holds the state for the two, which keep none themselves."""

    def __init__(self, design: str, run_config: RunConfig, tuned: bool) -> None:
        self.api: Any = importlib.import_module(f"compare.{design}_gpt")
        self.execution = self.api.PLAIN
        if tuned:
            self.execution = getattr(importlib.import_module("compare.tuned"), design)()
        self.run_config = run_config
        self.state = self.api.make(run_config, run_config.seed)
        self.key = jax.random.key(run_config.seed)

    def params(self) -> Any:
        return self.state["params"] if isinstance(self.state, dict) else self.state.params

    def set_weights(self, arrays: Arrays) -> None:
        fresh = self.api.make(self.run_config, self.run_config.seed)
        params = unflatten(arrays, jnp.asarray)
        is_dict = isinstance(fresh, dict)
        self.state = fresh | {"params": params} if is_dict else fresh.replace(params=params)

    def weights(self) -> Arrays:
        return flatten(self.params())

    def logits(self, x_BT: np.ndarray) -> np.ndarray:
        arguments = (self.run_config, self.params(), jnp.asarray(x_BT), None, self.execution)
        return np.asarray(self.api.forward(*arguments))

    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays:
        loss = partial(self.api.loss, self.run_config, execution=self.execution)
        return flatten(jax.grad(loss)(self.params(), *self.put(x_BT, y_BT)))

    def put(self, x: np.ndarray, y: np.ndarray) -> Any:
        return jnp.asarray(x), jnp.asarray(y)

    def step(self, batch: Any) -> Any:
        self.state, loss = self.api.train_step(*self._step_arguments(batch))
        return loss

    def steps(self, batches: Any) -> Any:
        self.state, losses = self.api.train_steps(*self._step_arguments(batches))
        return losses

    def _step_arguments(self, batch: Any) -> Any:
        return self.run_config, self.state, *batch, self.key, self.execution

    def generate(self, prompt_BT: np.ndarray, max_new_tokens: int, way: str = CACHED) -> np.ndarray:
        if way == SERVED:
            return self._serve(prompt_BT, max_new_tokens)
        return np.asarray(self.api.generate(*self._sampling(prompt_BT, max_new_tokens, way)))

    def _sampling(self, prompt_BT: np.ndarray, max_new_tokens: int, way: str) -> Any:
        settings = Settings(max_new_tokens, 0.0, way in (CACHED, PACKED), packing(way))
        return self.run_config, self.params(), jnp.asarray(prompt_BT), self.key, settings

    def _serve(self, prompt_BT: np.ndarray, max_new_tokens: int) -> np.ndarray:
        """Samples with `gptjax.generate`, which users call. Only for Linen."""
        import gptjax

        gpt, length = gptjax.GPT(self.run_config.model), max_new_tokens
        tokens = gptjax.generate(
            gpt, self.params(), prompt_BT, self.key, max_new_tokens=length, temperature=0.0
        )
        return np.asarray(tokens)

    def save(self, path: Path) -> None:
        self.api.save(path, self.state)

    def load(self, path: Path) -> None:
        self.state = jax.block_until_ready(self.api.load(path, self.run_config))

    def trace_step(self, batch: Any) -> Any:
        return self.api.train_step.trace(*self._step_arguments(batch))

    def trace_sampling(self, prompt_BT: np.ndarray, max_new_tokens: int) -> Any:
        return self.api.generate.trace(*self._sampling(prompt_BT, max_new_tokens, CACHED))

    def flatten_state(self) -> None:
        leaves, structure = jax.tree.flatten(self.state)
        jax.tree.unflatten(structure, leaves)

    def other_ways(self) -> dict[str, Any]:
        return {}


def packing(way: str) -> Any:
    """Settings.pack for a way to sample: the layout that `gptjax.generate` uses, or None."""
    if way != PACKED:
        return None
    from gptjax.inference.cache import pack_heads, unpack_heads

    return pack_heads, unpack_heads
