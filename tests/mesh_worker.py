"""python mesh_worker.py MESH FILE: trains small models on a mesh of 8 devices and on one of them.

Writes the observations to FILE as JSON, for test_sharding.py.
"""

import json
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax import loss
from gptjax.backends import sharding
from gptjax.backends.collectives import collectives
from gptjax.backends.execution import suited
from gptjax.backends.mesh import MeshShape
from gptjax.config import GPTConfig, RunConfig, TrainConfig
from gptjax.model import GPT
from gptjax.training import init_state, make_keys, make_train_loop

MODEL = GPTConfig(vocab_size=61, block_size=16, n_layer=2, n_head=4, n_embd=64, dropout=0.1)
TRAIN = TrainConfig(batch_size=16, max_iters=50, learning_rate=1e-3, min_lr=1e-4, warmup_iters=5)
TOKENS = (np.arange(5000) % 61).astype(np.uint8)  # it counts, which is learned quickly
STEPS = 50
CASES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon, accumulated": {
        "optimizer": "muon",
        "gradient_accumulation_steps": 2,
        "tie_embeddings": True,
    },
    "large vocabulary, in pieces": {"vocab_size": 4100, "tie_embeddings": True},
}
loss.PIECE_BYTES = 2**20  # several pieces of it


def run(run_config: RunConfig, mesh: Any) -> dict[str, Any]:
    """Losses of STEPS updates, one update per dispatch, and the program that computes them."""
    model = sharding.spread(suited(GPT(run_config.model), run_config, "cpu"), mesh)
    init = partial(init_state, model, run_config)
    keys, tokens = sharding.everywhere(mesh, (make_keys(1), TOKENS))
    abstract = sharding.target(mesh, jax.eval_shape(init, keys.params))
    where = mesh and jax.tree.map(lambda x: x.sharding, abstract)
    fast = {"xla_backend_optimization_level": 0}  # compile fast; the operations are the same
    state = jax.jit(init, out_shardings=where, compiler_options=fast)(keys.params)
    first = jax.device_get(state.params)
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            x.addressable_shards[0].data.nbytes,
            x.nbytes,
        )
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    }
    loop = make_train_loop(model, run_config, sharding.placement(mesh))
    program = loop.lower(state, tokens, keys, jnp.int32(1)).compile(fast)
    losses = []
    for step in range(1, STEPS + 1):
        state, metrics = program(state, tokens, keys, jnp.int32(step))
        losses.append(float(metrics.last.loss))
    return {
        "first": first,
        "losses": losses,
        "sizes": sizes,
        "collectives": collectives(program.as_text()),
        "temporaries": program.memory_analysis().temp_size_in_bytes,
    }


def main(mesh: str, path: str) -> None:
    """Each case on one device and on the mesh."""
    devices = sharding.make_mesh(MeshShape.parse(mesh))
    found = {}
    for name, changes in CASES.items():
        run_config = RunConfig(MODEL, TRAIN).replace(**changes)
        one, many = run(run_config, None), run(run_config, devices)
        same = jax.tree.map(np.array_equal, one.pop("first"), many.pop("first"))
        found[name] = {"one": one, "many": many, "same_start": all(jax.tree.leaves(same))}
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
