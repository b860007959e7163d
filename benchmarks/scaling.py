"""Reads the communication and the memory of one update on a mesh from the compiled program.

python benchmarks/scaling.py                 8 simulated devices, about 5 minutes on 2 cores
python benchmarks/scaling.py --quick         a toy model, only to check that it works

It does not train or allocate weights: it only compiles the update and reads the program. It prints
the tables of docs/scaling.md: the bytes for each mesh beside a formula, and a calculation of how
the time to send them grows with the number of devices.
"""

import argparse
import math
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing
DEVICES = 8
flag = f"--xla_force_host_platform_device_count={DEVICES}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from gptjax.backends import sharding  # noqa: E402
from gptjax.backends.collectives import collectives  # noqa: E402
from gptjax.backends.execution import suited  # noqa: E402
from gptjax.backends.flops import train_flops  # noqa: E402
from gptjax.backends.mesh import MeshShape  # noqa: E402
from gptjax.config import GPTConfig, RunConfig  # noqa: E402
from gptjax.model import GPT, num_params  # noqa: E402
from gptjax.presets import PRESETS  # noqa: E402
from gptjax.store import runs  # noqa: E402
from gptjax.training import init_state, make_keys, make_train_loop  # noqa: E402

MESHES = ("data=8", "fsdp=8", "data=2,fsdp=4", "data=4,tensor=2", "data=2,fsdp=2,tensor=2")
SIZES = {
    "shakespeare, 10.7 M": PRESETS["shakespeare"],
    "GPT-2, 124 M": PRESETS["gpt2"],
    "GPT-2 XL, 1.56 B": PRESETS["gpt2-xl"],
}
# Bytes per second in one direction out of one device, as the makers state them.
LINKS = {"NVLink of an H100": 450e9, "InfiniBand NDR": 50e9, "ICI of a TPU v5e": 200e9}
PEAK, USED = 989e12, 0.4  # FLOP/s of an H100 in bfloat16, and the assumed share of them


class Found(NamedTuple):
    """The bytes on one device of a compiled update.

    Attributes:
        by_kind: bytes that each kind of collective writes.
        state: bytes of the parameters and the optimizer's state.
        temporaries: bytes of temporaries on a CPU, in float32.
    """

    by_kind: Counter[str]
    state: int
    temporaries: int


def compiled(run_config: RunConfig, shape: MeshShape) -> Found:
    """Compiles one update of this run on this mesh, without running it."""
    mesh = sharding.make_mesh(shape)
    model = sharding.spread(suited(GPT(run_config.model), run_config, "cpu"), mesh)
    keys = sharding.everywhere(mesh, make_keys(0))
    init = partial(init_state, model, run_config)
    state = sharding.target(mesh, jax.eval_shape(init, keys.params))
    tokens = jax.ShapeDtypeStruct((10**6,), jnp.uint8, sharding=sharding.replicated(mesh))
    loop: Any = make_train_loop(model, run_config, sharding.placement(mesh))
    fast = {"xla_backend_optimization_level": 0}
    program = loop.lower(state, tokens, keys, jnp.int32(1)).compile(fast)
    by_kind: Counter[str] = Counter()
    for kind, _, size in collectives(program.as_text()):
        by_kind[kind] += size
    here = sum(_bytes(x.sharding.shard_shape(x.shape), x.dtype) for x in jax.tree.leaves(state))
    return Found(by_kind, here, program.memory_analysis().temp_size_in_bytes)


def predicted(run_config: RunConfig, shape: MeshShape) -> Counter[str]:
    """The bytes by formula: parameters divided over `fsdp` are gathered, and gradients are summed.

    all-gather: each divided parameter once, for the forward pass (the backward pass can reuse it).
    all-reduce: the gradient and, with `tensor`, the residual stream six times per block: twice in
    the forward pass; in the backward pass once for the feed-forward layer, and once each for
    queries, keys and values.
    """
    model_config = run_config.model
    params = runs.abstract_params(GPT(model_config))
    mesh = sharding.make_mesh(shape)
    specs = sharding.shardings(mesh, params)

    def size(leaf: Any, where: Any, *axes: str) -> int:
        """The bytes on a device if only these axes divide it."""
        parts = [mesh.shape[axis] for axis in where.spec if axis in axes]
        whole = _bytes(leaf.shape, leaf.dtype)
        for part in parts:
            whole //= part
        return whole

    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(specs), strict=True))
    found: Counter[str] = Counter()
    found["all-gather"] = sum(
        size(leaf, where, "tensor")
        for leaf, where in pairs
        if shape.fsdp > 1 and "fsdp" in where.spec
    )
    found["all-reduce"] = sum(size(leaf, where, "tensor") for leaf, where in pairs)
    if shape.tensor > 1:
        rows = run_config.train.batch_size // shape.rows
        stream = rows * model_config.block_size * model_config.n_embd * 4
        found["all-reduce"] += 6 * model_config.n_layer * stream
    return found


def by_mesh(name: str, run_config: RunConfig) -> None:
    """Prints the table of one model."""
    one = compiled(run_config, MeshShape())
    print(f"\n{name}, batch {run_config.train.batch_size}, {run_config.train.optimizer}\n")
    print("| mesh | state | temporaries | all-gather | formula | all-reduce | formula | others |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    print(f"| one device | {_mb(one.state)} | {_mb(one.temporaries)} | | | | | |")
    for mesh in MESHES:
        shape = MeshShape.parse(mesh)
        found, formula = compiled(run_config, shape), predicted(run_config, shape)
        gathered, reduced = (found.by_kind.pop(kind, 0) for kind in ("all-gather", "all-reduce"))
        others = ", ".join(f"{kind} {_mb(size)}" for kind, size in found.by_kind.items())
        print(
            f"| `{mesh}` | {_mb(found.state)} | {_mb(found.temporaries)} | {_mb(gathered)} | "
            f"{_mb(formula['all-gather'])} | {_mb(reduced)} | {_mb(formula['all-reduce'])} | "
            f"{others} |",
            flush=True,
        )


def on_paper(sequences: int) -> None:
    """Prints the time to send an update's bytes beside the time to compute the update.

    Args:
        sequences: number of sequences that each device computes.
    """
    rate = f"{USED:.0%} of {PEAK / 1e12:.0f} TFLOP/s"
    print(f"\n{sequences} sequences of the model's block a device; computing at {rate}\n")
    links = " | ".join(LINKS)
    print(f"| model | devices | computing | {links} |")
    print("|---|--:|--:|" + "--:|" * len(LINKS))
    for name, run_config in SIZES.items():
        params = num_params(runs.abstract_params(GPT(run_config.model)))
        flops = train_flops(run_config.model) * run_config.model.block_size * sequences
        for devices in (8, 64, 1024):
            # In a ring, each device sends nearly twice the bytes to sum (Patarasuk, Yuan, 2009).
            sent = 2 * 4 * params * (devices - 1) / devices
            times = " | ".join(f"{1000 * sent / speed:.3g} ms" for speed in LINKS.values())
            print(f"| {name} | {devices} | {1000 * flops / (PEAK * USED):.3g} ms | {times} |")


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * jnp.dtype(dtype).itemsize


def _mb(size: float) -> str:
    return f"{float(f'{size / 1e6:.3g}'):,g} MB" if size else "0"


def main() -> None:
    """Prints every table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a toy model")
    quick = parser.parse_args().quick
    toy = RunConfig(GPTConfig(vocab_size=64, block_size=16, n_layer=2, n_head=4, n_embd=64))
    laptop = PRESETS["shakespeare-cpu"].replace(batch_size=16, micro_batch_size=0)
    shakespeare = PRESETS["shakespeare"].replace(micro_batch_size=0)
    if quick:
        by_mesh("toy", toy.replace(batch_size=16))
    else:
        by_mesh("`shakespeare`", shakespeare)
        by_mesh("`shakespeare-cpu`", laptop)
    on_paper(16)


if __name__ == "__main__":
    main()
