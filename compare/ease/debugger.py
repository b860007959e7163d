"""A breakpoint inside the feed-forward layer, in pdb: does it show numbers, and how deep is it?"""

import inspect
import io
import pdb
import re
from collections.abc import Callable
from typing import Any

import jax

from compare.ease import Outcome, Problem

# Input for pdb: go to the breakpoint; print the input's type, its largest entry, and the stack.
COMMANDS = "continue\np type(x_BTC).__name__\np abs(x_BTC).max().item()\nwhere\ncontinue\n"


def _stop_in(method: Any, program: Callable[[], Any]) -> tuple[bool, str, int]:
    """Runs `program` under pdb with a breakpoint on the method's last line.

    Returns:
        Whether the input has numbers, its type, and the number of frames from program to line.
    """
    out = io.StringIO()
    debugger = pdb.Pdb(stdin=io.StringIO(COMMANDS), stdout=out, nosigint=True, readrc=False)
    debugger.use_rawinput = False
    lines, first = inspect.getsourcelines(method)
    debugger.set_break(inspect.getsourcefile(method) or "", first + len(lines) - 1, temporary=True)
    debugger.runcall(program)
    said = out.getvalue()
    kind = re.search(r"'(\w+)'", said)
    frames = re.findall(r"^[> ] (\S+)\(\d+\)", said, re.MULTILINE)
    ours = [i for i, frame in enumerate(frames) if frame == __file__]
    number = re.search(r"^(?:\(Pdb\) )?\d+\.\d+", said, re.MULTILINE) is not None
    return number, kind[1] if kind else "nothing", len(frames) - 1 - max(ours, default=0)


def _tell(jitted: tuple[bool, str, int] | None, plain: tuple[bool, str, int], how: str) -> Outcome:
    """What pdb shows inside the compiled function, if there is one, and without compiling."""
    says = ""
    if jitted is not None:
        there = "numbers" if jitted[0] else "no numbers"
        says = f"inside the compiled function `{jitted[1]}`, {there}; "
    there = "numbers" if plain[0] else "no numbers"
    says += f"{how} `{plain[1]}`, {there}, {plain[2]} frames below the call"
    facts = {
        "as_it_trains": jitted[0] if jitted else plain[0],
        "numbers": plain[0],
        "frames": plain[2],
    }
    return Outcome(says, facts)


def linen(problem: Problem) -> Outcome:
    from gptjax.model import FeedForward

    model, (x, _) = problem.linen(), problem.batch("linen")

    def forward():
        return model.apply({"params": problem.params}, x, deterministic=True)

    method = FeedForward.__call__
    method = getattr(method, "__wrapped__", method)
    jitted = _stop_in(method, lambda: jax.jit(forward)())
    return _tell(jitted, _stop_in(method, forward), "called without `jit`")


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, (x, _) = problem.nnx(), problem.batch("nnx")
    model.eval()
    method = gpt.FeedForward.__call__
    jitted = _stop_in(method, lambda: nnx.jit(lambda model: model(x))(model))
    return _tell(jitted, _stop_in(method, lambda: model(x)), "called without `nnx.jit`")


def torch(problem: Problem) -> Outcome:
    from compare import torch_gpt as gpt

    model, (x, _) = problem.torch(), problem.batch("torch")
    return _tell(None, _stop_in(gpt.FeedForward.forward, lambda: model(x)), "as it trains")
