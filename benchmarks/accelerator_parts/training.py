"""Trains a model on random text, compiled ahead of time, with dispatches like train.py's."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.backends.execution import suited, with_micro_batches
from gptjax.backends.flops import train_flops
from gptjax.config import RunConfig
from gptjax.model import GPT, Execution
from gptjax.training import LoopMetrics, init_state, make_keys, make_train_loop

TOKENS = 1_000_000  # length of the text, whose content does not affect the time


class Training:
    """Updates on demand.

    Attributes:
        trace_seconds: time to trace and lower the loop.
        compile_seconds: time to compile it.
        program: the compiled loop.
        memory: bytes of its arguments and temporaries, from XLA.

    Args:
        execution: how to compute the model; None means the best way for this machine.
    """

    def __init__(self, run_config: RunConfig, execution: Execution | None = None) -> None:
        platform = jax.default_backend()
        run_config = with_micro_batches(run_config, platform)
        model: Any = GPT(run_config.model, execution or Execution())
        if execution is None:
            model = suited(model, run_config, platform)
        self._keys = make_keys(run_config.seed)
        ids = np.random.default_rng(0).integers(0, min(256, run_config.model.vocab_size), TOKENS)
        self._tokens = jnp.asarray(ids.astype(np.uint8))
        init = jax.jit(lambda key: init_state(model, run_config, key))
        self._state, self._done = init(self._keys.params), 0
        loop: Any = make_train_loop(model, run_config)
        began = time.perf_counter()
        lowered = loop.lower(self._state, self._tokens, self._keys, np.int32(1))
        self.trace_seconds = time.perf_counter() - began
        self.program: Any = lowered.compile()
        self.compile_seconds = time.perf_counter() - began - self.trace_seconds
        size = self.program.memory_analysis()
        self.memory = size.argument_size_in_bytes + size.temp_size_in_bytes if size else None

    def dispatch(self, count: int) -> LoopMetrics:
        """Gives the device `count` updates, without waiting for the result."""
        self._done += count
        until = np.int32(self._done)
        self._state, metrics = self.program(self._state, self._tokens, self._keys, until)
        return metrics

    def seconds(self, updates: int, at_once: int) -> float:
        """Seconds per update, from `updates` updates with `at_once` per dispatch.

        As in train.py, the device gets its next dispatch before the last one's loss is read.
        """
        began, before = time.perf_counter(), None
        for _ in range(max(1, updates // at_once)):
            metrics = self.dispatch(at_once)
            if before is not None:
                before.last.loss.item()
            before = metrics
        assert before is not None
        before.last.loss.item()
        return (time.perf_counter() - began) / (max(1, updates // at_once) * at_once)


def shares(run_config: RunConfig, step: float, device: dict[str, Any]) -> str:
    """Three cells of a table: tokens/s, MFU, and the share of the measured product's rate."""
    tokens = run_config.train.sequences_per_update * run_config.model.block_size
    rate = train_flops(run_config.model) * tokens / step
    sheet = device.get("peak_flops")
    mfu = f"{rate / sheet:.1%}" if sheet else ""
    measured = device.get("matmul_flops")
    return f"{tokens / step:,.0f} | {mfu} | {f'{rate / measured:.1%}' if measured else ''}"
