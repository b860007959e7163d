"""The lecture's notes on attention, each as a function to try.

`attend` is attention with every choice left open. In the GPT, `gptjax.model.attention_weights`
masks the future, and keys and values come from the sequence itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Array = jax.Array


def attend(
    q_BTD: Array,
    k_BSD: Array,
    v_BSD: Array,
    mask_TS: Array | None = None,
    scaled: bool = True,
) -> Array:
    """Each of T positions takes a weighted average of S values.

    The mask and the source of keys and values decide the kind of attention. One sequence with a
    causal mask is a decoder's attention. One sequence without a mask is an encoder's. Keys and
    values from another sequence are cross-attention.

    Args:
        mask_TS: True where position t may look at s; without a mask, t may look at all of them.
        scaled: divide the scores by sqrt(D).

    Returns:
        (B, T, D).
    """
    scores_BTS = jnp.einsum("btd,bsd->bts", q_BTD, k_BSD)
    if scaled:
        scores_BTS = scores_BTS * q_BTD.shape[-1] ** -0.5
    if mask_TS is not None:
        scores_BTS = jnp.where(mask_TS[None], scores_BTS, -jnp.inf)
    return nn.softmax(scores_BTS, axis=-1) @ v_BSD


def edges(mask_TS: Array) -> list[tuple[int, int]]:
    """The directed graph on which attention passes messages: (from, to), sorted by receiver."""
    return [(int(s), int(t)) for t, s in np.argwhere(np.asarray(mask_TS))]


def score_variance(key: Array, head_size: int, scaled: bool) -> float:
    """Variance of the scores if the entries of queries and keys are N(0, 1)."""
    q_key, k_key = jax.random.split(key)
    q_TD = jax.random.normal(q_key, (512, head_size))
    k_SD = jax.random.normal(k_key, (512, head_size))
    scores_TS = q_TD @ k_SD.T * (head_size**-0.5 if scaled else 1.0)
    return float(scores_TS.var())
