"""The lecture's bigram model: a table of what follows what, and nothing else."""

import jax
from flax import linen as nn

from gptjax.lecture.initial import LectureModel

Array = jax.Array


class Bigram(LectureModel):
    """Row i of the table holds the logits of what follows token i: (B, T) ids to (B, T, V).

    Of the configuration only `vocab_size` shapes it. It looks back one token whatever the context,
    and `block_size` merely says how the text is cut for training (the lecture, "simplest
    baseline").
    """

    @nn.compact
    def __call__(self, x_BT: Array, *, deterministic: bool) -> Array:
        V = self.config.vocab_size
        init = nn.initializers.normal(self.config.init_std)
        return nn.Embed(V, V, embedding_init=init, name="table")(x_BT)
