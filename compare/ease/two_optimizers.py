"""Two optimizers in one loop: SGD for the two tables, their gradients halved, AdamW elsewhere."""

from typing import Any

import jax

from compare.ease import Outcome, Problem

STEPS, TABLES = 3, ("wte", "wpe")
SGD, ADAMW, DECAY = 0.5, 1e-2, 0.1


def _tell(how: str, losses: list[float]) -> Outcome:
    """The losses before each update and after the last. All designs must agree."""
    shown = ", ".join(f"{loss:.4f}" for loss in losses)
    return Outcome(f"{how}: the losses are {shown}", {"losses": losses})


def linen(problem: Problem) -> Outcome:
    import optax

    from gptjax.loss import cross_entropy
    from gptjax.model import forward

    model, params, (x, y) = problem.linen(), problem.params, problem.batch("linen")
    both: dict[Any, Any] = {
        "tables": optax.chain(optax.scale(0.5), optax.sgd(SGD)),
        "rest": optax.adamw(ADAMW, weight_decay=DECAY),
    }
    optimizer = optax.partition(
        both, {name: "tables" if name in TABLES else "rest" for name in params}
    )

    @jax.jit
    def step(params: Any, opt_state: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: cross_entropy(forward(model, p, x), y))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    opt_state, losses = optimizer.init(params), []
    for _ in range(STEPS + 1):
        params, opt_state, loss = step(params, opt_state)
        losses.append(float(loss))
    return _tell("`optax.partition` by names, one optimizer for the step", losses)


def nnx(problem: Problem) -> Outcome:
    import optax
    from flax import nnx

    from compare import nnx_gpt as gpt

    model, (x, y) = problem.nnx(), problem.batch("nnx")
    tables = nnx.Any(*map(nnx.PathContains, TABLES))
    sgd = nnx.Optimizer(
        model, optax.chain(optax.scale(0.5), optax.sgd(SGD)), wrt=nnx.All(nnx.Param, tables)
    )
    adamw = nnx.Optimizer(
        model,
        optax.adamw(ADAMW, weight_decay=DECAY),
        wrt=nnx.All(nnx.Param, nnx.Not(tables)),
    )

    @nnx.jit
    def step(model: Any, sgd: Any, adamw: Any) -> Any:
        loss, grads = nnx.value_and_grad(gpt.loss)(model, x, y)
        sgd.update(model, grads)
        adamw.update(model, grads)
        return loss

    losses = [float(step(model, sgd, adamw)) for _ in range(STEPS + 1)]
    return _tell("two optimizers, each with a filter (`wrt`)", losses)


def torch(problem: Problem) -> Outcome:
    import torch

    from compare import torch_gpt as gpt

    model, (x, y) = problem.torch(), problem.batch("torch")
    tables = [model.wte.weight, model.wpe.weight]
    rest = [p for name, p in model.named_parameters() if not name.startswith(TABLES)]
    sgd = torch.optim.SGD(tables, lr=SGD)
    adamw = torch.optim.AdamW(rest, lr=ADAMW, weight_decay=DECAY)
    losses = []
    for _ in range(STEPS + 1):
        loss = gpt.loss(model, x, y)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        for table in tables:
            table.grad.mul_(0.5)  # type: ignore[union-attr]  # backward made it
        sgd.step()
        adamw.step()
    return _tell("two optimizers over two lists, and `.grad` changed in place", losses)
