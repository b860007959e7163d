"""The state of the libraries: what their own projects say, where and when. Written by hand.

The dates say how old each fact is. Check a fact again before you rely on it.
"""

from typing import NamedTuple

from compare.figures import table


class Fact(NamedTuple):
    """A fact, its source, and its date."""

    fact: str
    source: str
    date: str


FACTS = (
    Fact(
        "Linen will not be deprecated in the near future, because most users of Flax still rely on "
        "it; new users are encouraged to use NNX",
        "front page of [Flax's documentation](https://flax.readthedocs.io)",
        "read November 2026",
    ),
    Fact(
        "Every release of Flax so far contains Linen, 0.12.12 included",
        "the packages; this project runs on 0.12.8 and on 0.12.12",
        "November 2026",
    ),
    Fact(
        "NNX itself moves towards values: in the proposed tree mode, a module is a pytree without "
        "shared references, and transforms no longer propagate changes of structure or take "
        "filters. Tree mode is meant to become the default; `nnx.compat` keeps today's behaviour",
        "[google/flax, docs_nnx/flip/5310-tree-mode-nnx.md](https://github.com/google/flax/blob/"
        "main/docs_nnx/flip/5310-tree-mode-nnx.md)",
        "4 March 2026",
    ),
    Fact(
        "MaxText, Google's reference for large language models in JAX, uses NNX by default. Its "
        "Linen code warns that Linen will be deprecated in MaxText, then removed",
        "[AI-Hypercomputer/maxtext #4654](https://github.com/AI-Hypercomputer/maxtext/pull/4654), "
        "merged",
        "opened 28 July 2026",
    ),
)

READER = """\
If you start today: learn NNX if you want objects, or will work in a codebase that uses it; Flax's
authors write new features for NNX. Learn Linen to read the large body of existing Linen code, and
to see a model that consists only of functions of values. In this project, only the model's files
and the few functions that call `model.apply` use Linen. Text, batches, schedule, checkpoints and
the command line do not depend on it. [compare/nnx_gpt.py](../compare/nnx_gpt.py) is the same model
in NNX.
"""


def section() -> str:
    """Returns the section: the facts as a table, and advice for readers."""
    rows = [[one.fact, one.source, one.date] for one in FACTS]
    return f"""## Linen today

{table(["", "source", "as of"], rows)}
{READER}"""
