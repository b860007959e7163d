"""Computes logits from a run's newest checkpoint, on the platform of this process.

python -m benchmarks.accelerator_parts.opened RUN ANSWER.npy    in bfloat16, written to a file
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import Dtype
from gptjax.inference.adapt import with_dtype
from gptjax.model import config_of, forward
from gptjax.store.runs import load_run


def logits(path: Path, dtype: Dtype) -> np.ndarray:
    """Float32 logits of four sequences of random tokens, the same for every call."""
    run = load_run(path, "latest")
    model, params = with_dtype(run.model, run.params, dtype)
    config = config_of(model)
    shape = 4, config.block_size
    x_BT = np.random.default_rng(0).integers(0, config.vocab_size, shape)
    return np.asarray(jax.jit(lambda p, x: forward(model, p, x))(params, jnp.asarray(x_BT)))


if __name__ == "__main__":
    np.save(sys.argv[2], logits(Path(sys.argv[1]), "bfloat16"))
