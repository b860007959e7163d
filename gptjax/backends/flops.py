"""How many floating-point operations a GPT costs, term by term.

Counted as in the appendix of the PaLM paper (Chowdhery et al., 2022, appendix B): matrix products
alone, a multiplication and an addition each one operation, and a causal model's whole square of
scores. What LayerNorm, softmax, GELU, dropout and the optimizer cost besides is left out.
"""

from typing import NamedTuple

from gptjax.config import GPTConfig

BACKWARD = 2  # a product's two gradients are products of the same size


class Term(NamedTuple):
    """One kind of product, for one token in all layers.

    Attributes:
        what: which, with its formula.
        forward: operations of the forward pass.
    """

    what: str
    forward: int


def terms(model_config: GPTConfig, tokens: int | None = None) -> list[Term]:
    """The products of a token's forward pass; its context is `tokens` long, or block_size."""
    C, L, V = model_config.n_embd, model_config.n_layer, model_config.vocab_size
    T = tokens or model_config.block_size
    return [
        Term("queries, keys and values: 2 L C 3C", 2 * L * C * 3 * C),
        Term("scores: 2 L T C", 2 * L * T * C),
        Term("weighted values: 2 L T C", 2 * L * T * C),
        Term("projection: 2 L C C", 2 * L * C * C),
        Term("feed-forward: 2 L C 4C, twice", 2 * L * C * 8 * C),
        Term("output layer: 2 C V", 2 * C * V),
    ]


def train_flops(model_config: GPTConfig, tokens: int | None = None) -> int:
    """Operations of forward and backward, for one token."""
    return (1 + BACKWARD) * sum(term.forward for term in terms(model_config, tokens))
