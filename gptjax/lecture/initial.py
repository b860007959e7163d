"""Where the first models start. The lecture's figures come from PyTorch's own initial values."""

from typing import Any

import jax
from flax import linen as nn

from gptjax.config import GPTConfig

Array = jax.Array


def like_pytorch(params: Any, key: Array) -> Any:
    """Draws parameters anew, as PyTorch draws those of its layers unless told otherwise.

    A table starts at N(0, 1). A linear layer's kernel (..., in, out) and its bias start uniform
    between -1 / sqrt(in) and 1 / sqrt(in). LayerNorm keeps its ones and zeros.
    """
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(sorted(params))}
    if "embedding" in params:
        return {"embedding": jax.random.normal(keys["embedding"], params["embedding"].shape)}
    if "kernel" in params:
        bound = params["kernel"].shape[-2] ** -0.5
        return {
            name: jax.random.uniform(keys[name], array.shape, minval=-bound, maxval=bound)
            for name, array in params.items()
        }
    return {
        name: like_pytorch(part, keys[name]) if isinstance(part, dict) else part
        for name, part in params.items()
    }


class LectureModel(nn.Module):
    """What the models before the GPT share: the GPT's call signature, and where they start.

    N(0, 0.02) belongs to the GPT, whose residual stream and LayerNorm make it a good start. A
    model without them learns slowly from it, and 5,000 updates do not bring it to the lecture's
    losses; docs/lecture.md has the comparison.

    Attributes:
        pytorch_init: start like PyTorch's layers, as the lecture's models do; else at N(0, 0.02).
    """

    config: GPTConfig
    pytorch_init: bool = True

    @nn.nowrap
    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module.init`."""
        variables = super().init(rngs, *args, **kwargs)
        if not self.pytorch_init:
            return variables
        key = rngs["params"] if isinstance(rngs, dict) else rngs
        return {**variables, "params": like_pytorch(variables["params"], key)}
