"""Eight devices: weights and batch divided over them, an update, and the loss of one device?"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from compare.ease import Outcome, Problem, small_problem
from gptjax.errors import RunError, one_line

DEVICES = 8
Program = Callable[[Problem], Outcome]


def _called(module: list[str], program: Program, environment: dict[str, str]) -> Outcome:
    """Runs a program in a new process, and returns its outcome."""
    command = [sys.executable, "-m", *module, "compare.ease.devices", program.__name__]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RunError(f"{' '.join(command)} failed: {one_line(done.stderr[-2000:], 500)}")
    return Outcome(*json.loads(done.stdout.splitlines()[-1]))


def _on_devices(program: Program) -> Program:
    """Runs a program in a process with simulated devices, because JAX counts them at its start."""

    @functools.wraps(program)
    def call(problem: Problem) -> Outcome:
        if jax.device_count() == DEVICES:
            return program(problem)
        flag = f"--xla_force_host_platform_device_count={DEVICES}"
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        return _called([], program, {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})

    return call


def _by_torchrun(program: Program) -> Program:
    """Runs a program in one process per device, as PyTorch needs."""

    @functools.wraps(program)
    def call(problem: Problem) -> Outcome:
        if "RANK" in os.environ:
            return program(problem)
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={DEVICES}", "-m"]
        return _called(torchrun, program, {"OMP_NUM_THREADS": "1"})

    return call


def _tell(how: str, losses: list[float], here: int, whole: int) -> Outcome:
    """The losses before and after the update, and the bytes of weights on the first device."""
    says = (
        f"{how}: the loss goes from {losses[0]:.4f} to {losses[1]:.4f}, and a device holds "
        f"{here:,} of {whole:,} bytes of the weights"
    )
    return Outcome(says, {"losses": losses, "here": here, "whole": whole})


@_on_devices
def linen(problem: Problem) -> Outcome:
    from gptjax.loss import cross_entropy
    from gptjax.model import forward

    model, (x, y) = problem.linen(), problem.batch("linen")
    mesh = jax.sharding.Mesh(jax.devices(), ("fsdp",))

    def where(leaf: Any) -> jax.NamedSharding:
        axes = ["fsdp" if n % DEVICES == 0 else None for n in leaf.shape]
        first = axes.index("fsdp") if "fsdp" in axes else len(axes)
        spec = [axis if i == first else None for i, axis in enumerate(axes)]
        return jax.NamedSharding(mesh, jax.P(*spec))

    @jax.jit
    def update(params: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: cross_entropy(forward(model, p, x), y))(params)
        return loss, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    params = jax.device_put(problem.params, jax.tree.map(where, problem.params))
    x, y = jax.device_put((x, y), jax.NamedSharding(mesh, jax.P("fsdp")))
    losses = []
    for _ in range(2):
        loss, params = update(params, x, y)
        losses.append(float(loss))
    leaves = jax.tree.leaves(params)
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    return _tell("`device_put` of both", losses, here, sum(leaf.nbytes for leaf in leaves))


@_on_devices
def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, (x, y) = problem.nnx(), problem.batch("nnx")
    mesh = jax.sharding.Mesh(jax.devices(), ("fsdp",))

    def where(leaf: Any) -> jax.NamedSharding:
        axes = ["fsdp" if n % DEVICES == 0 else None for n in leaf.shape]
        first = axes.index("fsdp") if "fsdp" in axes else len(axes)
        spec = [axis if i == first else None for i, axis in enumerate(axes)]
        return jax.NamedSharding(mesh, jax.P(*spec))

    @nnx.jit
    def update(model: Any, x: Any, y: Any) -> Any:
        loss, grads = nnx.value_and_grad(gpt.loss)(model, x, y)
        params = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
        return loss

    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.device_put(state, jax.tree.map(where, state)))
    x, y = jax.device_put((x, y), jax.NamedSharding(mesh, jax.P("fsdp")))
    losses = [float(update(model, x, y)) for _ in range(2)]
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    how = "`device_put` of the model's state, `update`, and of the batch"
    return _tell(how, losses, here, sum(leaf.nbytes for leaf in leaves))


@_by_torchrun
def torch(problem: Problem) -> Outcome:
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    from compare import torch_gpt as gpt

    model, (x, y) = problem.torch(), problem.batch("torch")
    dist.init_process_group("gloo")
    mesh = dist.device_mesh.init_device_mesh("cpu", (DEVICES,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    x, y = x.chunk(DEVICES)[dist.get_rank()], y.chunk(DEVICES)[dist.get_rank()]
    losses = []
    for _ in range(2):
        loss = gpt.loss(model, x, y)
        loss.backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean, dist.ReduceOp.AVG)
        losses.append(float(mean))
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
                p.grad = None
    here = sum(p.to_local().nbytes for p in model.parameters())  # type: ignore[operator]
    dist.destroy_process_group()
    how = "eight processes, each of which runs the whole program, and `fully_shard`"
    return _tell(how, losses, here, sum(p.nbytes for p in model.parameters()))


if __name__ == "__main__":
    outcome = globals()[sys.argv[1]](small_problem())
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(json.dumps(outcome) + "\n")
