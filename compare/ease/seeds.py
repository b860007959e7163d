"""Training 8 seeds at once: can the program that trains one be transformed?"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem, timed
from compare.figures import show_spread, spread

SEEDS, STEPS = 8, 20


def _tell(how: str, together: list[float], loop: list[float], difference: float) -> Outcome:
    """The times of both ways in milliseconds, and the difference of their losses."""
    says = (
        f"{how}: {show_spread(spread(together))} ms for {STEPS} steps of {SEEDS} seeds, against "
        f"{show_spread(spread(loop))} ms one seed after another; the losses are within "
        f"{difference:.0e}"
    )
    return Outcome(says, {"together_ms": together, "loop_ms": loop, "difference": difference})


def linen(problem: Problem) -> Outcome:
    from gptjax.data import Batch
    from gptjax.training import init_state, make_train_step

    model, run_config, key = problem.linen(), problem.run_config, jax.random.key(0)
    batches = Batch(jnp.asarray(problem.x[:STEPS]), jnp.asarray(problem.y[:STEPS]))

    def train(seed):  # one seed
        state = init_state(model, run_config, jax.random.key(seed))
        step = make_train_step(model, run_config)
        return jax.lax.scan(lambda state, batch: step(state, batch, key), state, batches)[1].loss

    seeds, one, all_at_once = jnp.arange(SEEDS), jax.jit(train), jax.jit(jax.vmap(train))
    loop = partial(jax.tree.map, one, list(seeds))
    difference = np.abs(np.stack(loop()) - all_at_once(seeds)).max()
    times = timed(problem, lambda: all_at_once(seeds)), timed(problem, loop)
    return _tell("`jax.vmap(train)`, the whole training", *times, float(difference))


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    run_config = problem.run_config
    x, y = jnp.asarray(problem.x[:STEPS]), jnp.asarray(problem.y[:STEPS])

    def train(seed):  # one seed; the objects exist only inside
        model = gpt.NnxGPT(run_config.model, nnx.Rngs(jax.random.key(seed)))
        optimizer = nnx.Optimizer(model, gpt.make_optimizer(run_config.train), wrt=nnx.Param)
        return gpt.train_steps(model, optimizer, x, y)

    seeds, one, all_at_once = jnp.arange(SEEDS), jax.jit(train), jax.jit(jax.vmap(train))
    loop = partial(jax.tree.map, one, list(seeds))
    difference = np.abs(np.stack(loop()) - all_at_once(seeds)).max()
    times = timed(problem, lambda: all_at_once(seeds)), timed(problem, loop)
    return _tell("`jax.vmap(train)`, the whole training", *times, float(difference))


def torch(problem: Problem) -> Outcome:
    import torch
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from compare import torch_gpt as gpt

    x, y = torch.from_numpy(problem.x).long(), torch.from_numpy(problem.y).long()
    train_config = problem.run_config.train

    def loop():
        made = [gpt.make(problem.run_config, seed) for seed in range(SEEDS)]
        steps = [[gpt.train_step(*m, x[i], y[i]) for m in made] for i in range(STEPS)]
        return np.array([[loss.item() for loss in losses] for losses in steps])

    def together():
        models = [gpt.make(problem.run_config, seed)[0] for seed in range(SEEDS)]
        stacked, _ = stack_module_state(models)
        skeleton = models[0]

        def loss(params, x_BT, y_BT):
            logits = functional_call(skeleton, params, (x_BT,))
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y_BT.flatten())

        gradient = vmap(grad_and_value(loss), in_dims=(0, None, None))
        # The optimizer sees one stacked tensor per parameter. So this repeats its groups, which
        # depend on the number of axes, and the clipping, which depends on each model's norm.
        names = {n for n, p in skeleton.named_parameters() if p.ndim > 1}
        groups = [
            {
                "params": [p for n, p in stacked.items() if (n in names) == decayed],
                "weight_decay": train_config.weight_decay * decayed,
            }
            for decayed in (True, False)
        ]
        betas = (train_config.beta1, train_config.beta2)
        optimizer = gpt.Optimizer(groups, lr=train_config.learning_rate, betas=betas, fused=True)
        schedule, losses = gpt.make_schedule(train_config, optimizer), []
        for i in range(STEPS):
            # The fused attention kernel has no rule for vmap; the plain form has.
            with sdpa_kernel(SDPBackend.MATH):
                grads, loss_now = gradient(stacked, x[i], y[i])
            squares = torch.stack([g.flatten(1).square().sum(1) for g in grads.values()])
            scale = (train_config.grad_clip / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
            for name, p in stacked.items():
                grad = grads[name] * scale.view(-1, *[1] * (p.ndim - 1))
                p.grad = grad.contiguous()  # see `fused_error`
            optimizer.step()
            schedule.step()
            losses.append(loss_now.detach().numpy())
        return np.array(losses)

    difference = np.abs(together() - loop()).max()
    how = "`torch.func` over stacked weights, with optimizer groups and clipping written again"
    outcome = _tell(how, timed(problem, together), timed(problem, loop), float(difference))
    return outcome._replace(facts=outcome.facts | {"fused_error": fused_error()})


def fused_error() -> float:
    """How far fused AdamW is from plain AdamW if a gradient is transposed in memory.

    This is for one update with rate 0.1. `vmap` returns such gradients, and there is no warning.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(3, 5, generator=generator).T
    moved = []
    for fused in (True, False):
        p = torch.nn.Parameter(torch.zeros(5, 3))
        p.grad = grad
        torch.optim.AdamW([p], lr=0.1, fused=fused).step()
        moved.append(p.detach())
    return float((moved[0] - moved[1]).abs().max())
