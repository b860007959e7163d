"""python plan_worker.py FILE: compares the plan's bytes with those of states placed on 8 devices,
and with the temporaries that XLA no longer needs with --remat.
"""

import json
import sys
from functools import partial
from typing import Any

import jax

from gptjax.backends import plan, sharding
from gptjax.backends.execution import suited
from gptjax.backends.mesh import MeshShape
from gptjax.config import GPTConfig, RunConfig, TrainConfig
from gptjax.model import GPT
from gptjax.training import init_state, make_keys

BASE = RunConfig(
    GPTConfig(vocab_size=61, block_size=16, n_layer=2, n_head=4, n_embd=64), TrainConfig(16)
)
MODELS: dict[str, dict[str, Any]] = {
    "adamw, untied": {"qkv_bias": True},
    "muon, tied": {"optimizer": "muon", "tie_embeddings": True, "head_bias": False},
    "scanned, three blocks": {"n_layer": 3, "scan_layers": True},
}
MESHES = ("data=8", "fsdp=8", "data=2,fsdp=4", "data=2,fsdp=2,tensor=2")


def here(tree: Any) -> int:
    """Bytes on the first device."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def saved_by_remat() -> tuple[int, int]:
    """Temporaries on fsdp=8 that XLA needs only without --remat, and the plan's for the same."""
    mesh = sharding.make_mesh(MeshShape(fsdp=8))
    few_tokens = BASE.replace(n_layer=12, n_embd=128, batch_size=8, scan_layers=True)
    real, planned = [], []
    for remat in (False, True):
        run_config = few_tokens.replace(remat=remat)
        real.append(plan.temporaries(run_config, mesh))
        activations = plan.activation_bytes(run_config, 8, has_weights=True)
        planned.append(plan.gathered_bytes(run_config, mesh) + activations)
    return real[0] - real[1], planned[0] - planned[1]


def main(path: str) -> None:
    """Each model on each mesh."""
    found = []
    for name, changes in MODELS.items():
        run_config = BASE.replace(**changes)
        model = suited(GPT(run_config.model), run_config, "cpu")
        state = jax.jit(partial(init_state, model, run_config))(make_keys(0).params)
        for text in MESHES:
            mesh = sharding.make_mesh(MeshShape.parse(text))
            placed = sharding.place(mesh, state)
            real = [here(placed.params), here(placed.opt_state), here(placed.params)]
            found.append((name, text, real, plan.state_bytes(run_config, mesh)))
    with open(path, "w") as file:
        json.dump({"state": found, "remat": saved_by_remat()}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
