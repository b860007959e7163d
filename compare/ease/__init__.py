"""Short programs: what each design makes easy or hard, and what came out when they ran.

Each file is a question. It has a function for each design, `linen`, `nnx` and `torch`, which takes
the same small problem and answers with an Outcome: a sentence for people, and its facts as values.
The functions stand side by side to be read; their lengths are counted and told too.
"""

import ast
import importlib
import inspect
import textwrap
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from compare import weights
from gptjax.config import GPTConfig, RunConfig, TrainConfig

TOPICS = (
    "seeds",
    "per_example",
    "resume",
    "freeze",
    "activations",
    "replace",
    "debugger",
    "hidden",
)
DESIGNS = ("linen", "nnx", "torch")
REPEATS = 5  # of what is timed


class Outcome(NamedTuple):
    """What a program found: `says` is one sentence, `facts` are what it is made of."""

    says: str
    facts: dict[str, Any]


class Problem(NamedTuple):
    """A model small enough for a moment, the same for all.

    Attributes:
        config: a RunConfig; `config.model` has no dropout.
        params: gptjax's tree.
        x, y: ids (N, B, T), int32, NumPy.
        repeats: how often a program is timed.
    """

    config: RunConfig
    params: Any
    x: np.ndarray
    y: np.ndarray
    repeats: int

    def native(self, design: str) -> dict[str, np.ndarray]:
        """The weights under a design's own names."""
        return weights.to_native(design, self.config.model, self.params)


def small_problem(repeats: int = REPEATS, steps: int = 24) -> Problem:
    """Two blocks, 32 wide, on text that counts up: something to learn at once."""
    config = RunConfig(
        model=GPTConfig(
            vocab_size=17, block_size=16, n_layer=2, n_head=2, n_embd=32, dropout=0.0, init_std=0.1
        ),
        train=TrainConfig(batch_size=8, max_iters=1000, learning_rate=1e-3, warmup_iters=0),
    )
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 17, (steps, 8, 1))
    ids = ((starts + np.arange(17) * rng.integers(1, 4, (steps, 8, 1))) % 17).astype(np.int32)
    params = weights.shared_params(config)
    return Problem(config, params, ids[..., :-1].copy(), ids[..., 1:].copy(), repeats)


def run(topic: str, designs: list[str], problem: Problem) -> dict[str, Any]:
    """Runs a topic's programs.

    Returns:
        `question` and `file`; by design, what its program `says`, its `facts`, and its `lines`.
    """
    module: Any = importlib.import_module(f"compare.ease.{topic}")
    result: dict[str, Any] = {"question": module.__doc__.strip().splitlines()[0], "designs": {}}
    for design in designs:
        program = getattr(module, design)
        outcome: Outcome = program(problem)
        result["designs"][design] = {**outcome._asdict(), "lines": count_lines(program)}
    return result


def count_lines(program: Callable[..., Any]) -> int:
    """Lines of a function that do something: not its def, its docstring, comments or blanks."""
    source = textwrap.dedent(inspect.getsource(program))
    first = ast.parse(source).body[0].body[0]  # type: ignore[attr-defined]  # a function's
    lines = source.splitlines()
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines[first.lineno - 1 : first.end_lineno] = []
    return sum(1 for line in lines[1:] if line.strip() and not line.strip().startswith("#"))


def timed(problem: Problem, program: Callable[[], Any]) -> list[float]:
    """Milliseconds of each run of `program`; if it compiles, it has run before."""
    times = []
    for _ in range(problem.repeats):
        start = time.perf_counter()
        jax.block_until_ready(program())
        times.append((time.perf_counter() - start) * 1e3)
    return times
