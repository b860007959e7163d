"""How many floating-point operations a GPT costs, term by term.

The count follows the PaLM paper (Chowdhery et al., 2022, appendix B). It includes only matrix
products, with a multiplication and an addition as one operation each, and a causal model's whole
square of scores. It leaves out LayerNorm, softmax, GELU, dropout and the optimizer.
"""

from typing import NamedTuple

from gptjax.config import GPTConfig

BACKWARD = 2  # a product's two gradients are products of the same size


class Term(NamedTuple):
    """One kind of product, for one token in all layers.

    Attributes:
        what: the product's name and formula.
        forward: operations in the forward pass.
    """

    what: str
    forward: int


def terms(model_config: GPTConfig, tokens: int | None = None) -> list[Term]:
    """The products in a token's forward pass, with a context of `tokens`, or of block_size."""
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
    """Operations of the forward and backward pass for one token."""
    return (1 + BACKWARD) * sum(term.forward for term in terms(model_config, tokens))
