"""Positions: how similar the rows of a table of positions are.

The GPT has a learned table, `gptjax.rungs.Sinusoids` has the Transformer paper's, and
`gptjax.rungs.WithoutPositions` has none.
"""

import numpy as np


def similarity(table_TC: np.ndarray) -> np.ndarray:
    """Cosine similarity of every two rows, (T, T): how alike two positions look to the model."""
    rows_TC = table_TC / np.linalg.norm(table_TC, axis=1, keepdims=True).clip(1e-12)
    return rows_TC @ rows_TC.T


def turns(table_TC: np.ndarray, k: int) -> np.ndarray:
    """How each pair of channels turns in k positions: dot products, (T - k, C / 2).

    Channels 2i and 2i + 1 are the coordinates of a point in the plane. In a table of sinusoids, all
    points lie on the unit circle. The dot product is then the cosine of an angle that depends on k
    and on the pair, but not on the position.
    """
    pairs_TP2 = table_TC.reshape(len(table_TC), -1, 2)
    return (pairs_TP2[k:] * pairs_TP2[: len(pairs_TP2) - k]).sum(axis=-1)
