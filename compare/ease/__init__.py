"""Short programs that show what each design makes easy or hard.

Each file is a question. It has a function for each design, `linen`, `nnx` and `torch`. Each takes
the same small problem and returns an Outcome: a sentence to read, and its facts as values. Read the
functions side by side. Their lines are counted; a model with given weights and a batch, which all
of them need, come from the Problem and are not counted.
"""

import ast
import importlib
import inspect
import io
import textwrap
import time
import tokenize
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
    "surgery",
    "mixed",
    "sharing",
    "two_optimizers",
    "wrong_shape",
    "devices",
)
# A quick run skips these, which train repeatedly or compile for a long time.
LONG = ("seeds", "per_example", "resume", "devices")
DESIGNS = ("linen", "nnx", "torch")
IMPORTS = (ast.Import, ast.ImportFrom)
REPEATS = 5  # of each timing


class Outcome(NamedTuple):
    """The result of a program: `says` is one sentence, made from `facts`."""

    says: str
    facts: dict[str, Any]


class Problem(NamedTuple):
    """A small model with the same weights for all designs, and text to train it on.

    Attributes:
        run_config: a configuration without dropout.
        params: gptjax's parameter tree.
        x, y: ids (N, B, T), int32, NumPy.
        repeats: how often to time a program.
    """

    run_config: RunConfig
    params: Any
    x: np.ndarray
    y: np.ndarray
    repeats: int

    def linen(self) -> Any:
        """A GPT to call with `params`."""
        from gptjax import GPT

        return GPT(self.run_config.model)

    def nnx(self) -> Any:
        """An NnxGPT in training mode that holds the weights."""
        from compare import nnx_gpt
        from compare.drive.nnx import set_params

        model, _ = nnx_gpt.make(self.run_config, 0)
        set_params(model, weights.to_native("nnx", self.run_config.model, self.params))
        return model

    def torch(self) -> Any:
        """A TorchGPT in training mode that holds the weights."""
        import torch

        from compare import torch_gpt

        model, _, _ = torch_gpt.make(self.run_config, 0)
        native = weights.to_native("torch", self.run_config.model, self.params)
        model.load_state_dict({name: torch.from_numpy(array) for name, array in native.items()})
        return model

    def batch(self, design: str) -> Any:
        """The first batch (x_BT, y_BT), in the form that a design needs."""
        if design != "torch":
            return jax.numpy.asarray(self.x[0]), jax.numpy.asarray(self.y[0])
        import torch

        return torch.from_numpy(self.x[0]).long(), torch.from_numpy(self.y[0]).long()


def small_problem(repeats: int = REPEATS, steps: int = 24) -> Problem:
    """A model with two blocks of width 32, and text that counts up, which it learns quickly."""
    model = GPTConfig(
        vocab_size=17, block_size=16, n_layer=2, n_head=2, n_embd=32, dropout=0.0, init_std=0.1
    )
    train = TrainConfig(batch_size=8, max_iters=1000, learning_rate=1e-3, warmup_iters=0)
    run_config = RunConfig(model=model, train=train)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 17, (steps, 8, 1))
    ids = ((starts + np.arange(17) * rng.integers(1, 4, (steps, 8, 1))) % 17).astype(np.int32)
    params = weights.shared_params(run_config)
    return Problem(run_config, params, ids[..., :-1].copy(), ids[..., 1:].copy(), repeats)


def run(topic: str, designs: list[str], problem: Problem) -> dict[str, Any]:
    """Runs a topic's programs.

    Returns:
        `question`, and `designs`: for each, its program's `says`, `facts` and `lines`.
    """
    module: Any = importlib.import_module(f"compare.ease.{topic}")
    result: dict[str, Any] = {"question": module.__doc__.strip().splitlines()[0], "designs": {}}
    for design in designs:
        program = getattr(module, design)
        outcome: Outcome = program(problem)
        result["designs"][design] = {**outcome._asdict(), "lines": count_lines(program)}
    return result


RULE = """\
Lines are logical lines of the function's body, as Python's tokenizer counts them: a statement over
several rows is one. Docstrings, imports and comments are not counted.\
"""


def count_lines(program: Callable[..., Any]) -> int:
    """Counts the lines of a function's body by RULE, independent of its formatting."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(program)))
    body: list[Any] = tree.body[0].body  # type: ignore[attr-defined]  # a function's
    if ast.get_docstring(tree.body[0]) is not None:  # type: ignore[arg-type]
        body = body[1:]
    source = "\n".join(ast.unparse(statement) for statement in body)
    kept = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.NEWLINE
    ]
    imports = [node for s in body for node in ast.walk(s) if isinstance(node, IMPORTS)]
    return len(kept) - len(imports)


def injection_lines() -> dict[str, int]:
    """For each design, the lines of tuned.py that inject the products and the attention."""
    from compare import tuned

    needed: dict[str, tuple[Callable[..., Any], ...]] = {
        "linen": (tuned.linen,),
        "nnx": (tuned.nnx, tuned.attention, tuned.einsum),
        "plain": (tuned.plain, tuned.attention, tuned.product),
    }
    return {design: sum(map(count_lines, used)) for design, used in needed.items()}


def timed(problem: Problem, program: Callable[[], Any]) -> list[float]:
    """Milliseconds of each run of `program`. Run it once before, so that it is compiled."""
    times = []
    for _ in range(problem.repeats):
        start = time.perf_counter()
        jax.block_until_ready(program())
        times.append((time.perf_counter() - start) * 1e3)
    return times
