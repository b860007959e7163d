"""Training 8 seeds at once: is it a transformation of the program that trains one?"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from compare.ease import Outcome, Problem, timed
from compare.figures import show_spread, spread

SEEDS, STEPS = 8, 20


def _tell(how: str, together: list[float], loop: list[float], difference: float) -> Outcome:
    """Both ways in milliseconds, and how far their losses are apart."""
    says = (
        f"{how}: {show_spread(spread(together))} ms for {STEPS} steps of {SEEDS} seeds, against "
        f"{show_spread(spread(loop))} ms one seed after another; the losses are within "
        f"{difference:.0e}"
    )
    return Outcome(says, {"together_ms": together, "loop_ms": loop, "difference": difference})


def linen(problem: Problem) -> Outcome:
    from gptjax import GPT
    from gptjax.data import Batch
    from gptjax.training import init_state, make_train_step

    model, config = GPT(problem.config.model), problem.config
    batches, key = Batch(jnp.asarray(problem.x), jnp.asarray(problem.y)), jax.random.key(0)

    def train(seed):  # one seed
        state = init_state(model, config, jax.random.key(seed))
        step = make_train_step(model, config)
        first = jax.tree.map(lambda ids: ids[:STEPS], batches)
        return jax.lax.scan(lambda state, batch: step(state, batch, key), state, first)[1].loss

    seeds, one, all_at_once = jnp.arange(SEEDS), jax.jit(train), jax.jit(jax.vmap(train))
    loop = partial(jax.tree.map, one, list(seeds))
    difference = np.abs(np.stack(loop()) - all_at_once(seeds)).max()
    return _tell(
        "`jax.vmap(train)`, training itself included",
        timed(problem, lambda: all_at_once(seeds)),
        timed(problem, loop),
        float(difference),
    )


def nnx(problem: Problem) -> Outcome:
    from flax import nnx

    from compare import nnx_gpt as gpt

    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)

    def create(key):
        model = gpt.NnxGPT(problem.config.model, nnx.Rngs(key))
        tx = gpt.make_optimizer(problem.config.train)
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    def step(model, optimizer, x_BT, y_BT):
        loss, grads = nnx.value_and_grad(gpt.loss)(model, x_BT, y_BT)
        optimizer.update(model, grads)
        return loss

    keys = jax.random.split(jax.random.key(0), SEEDS)
    create_all = nnx.jit(nnx.vmap(create))
    step_one, step_all = nnx.jit(step), nnx.jit(nnx.vmap(step, in_axes=(0, 0, None, None)))

    def together():
        models, optimizers = create_all(keys)
        return jnp.stack([step_all(models, optimizers, x[i], y[i]) for i in range(STEPS)])

    create_one = nnx.jit(create)

    def loop():
        steps = [nnx.cached_partial(step_one, *create_one(key)) for key in keys]
        return jnp.array([[step(x[i], y[i]) for step in steps] for i in range(STEPS)])

    difference = np.abs(together() - loop()).max()
    how = "`nnx.vmap` of creation and of the step, two decorated functions"
    return _tell(how, timed(problem, together), timed(problem, loop), float(difference))


def torch(problem: Problem) -> Outcome:
    import torch
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from compare import torch_gpt as gpt

    x, y = torch.from_numpy(problem.x).long(), torch.from_numpy(problem.y).long()
    config = problem.config.train

    def loop():
        made = [gpt.make(problem.config, seed) for seed in range(SEEDS)]
        steps = [[gpt.train_step(*m, x[i], y[i]) for m in made] for i in range(STEPS)]
        return np.array([[loss.item() for loss in losses] for losses in steps])

    def together():
        models = [gpt.make(problem.config, seed)[0] for seed in range(SEEDS)]
        stacked, _ = stack_module_state(models)
        skeleton = models[0]

        def loss(params, x_BT, y_BT):
            logits = functional_call(skeleton, params, (x_BT,))
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y_BT.flatten())

        gradient = vmap(grad_and_value(loss), in_dims=(0, None, None))
        # The optimizer sees one stacked tensor a parameter, so its groups, which go by the number
        # of axes, and the clipping, which is by the norm of each model, are written again.
        names = {n for n, p in skeleton.named_parameters() if p.ndim > 1}
        groups = [
            {
                "params": [p for n, p in stacked.items() if (n in names) == decayed],
                "weight_decay": config.weight_decay * decayed,
            }
            for decayed in (True, False)
        ]
        betas = (config.beta1, config.beta2)
        optimizer = gpt.Optimizer(groups, lr=config.learning_rate, betas=betas, fused=True)
        schedule, losses = gpt.make_schedule(config, optimizer), []
        for i in range(STEPS):
            # The fused attention kernel has no rule for vmap; the written-out form has.
            with sdpa_kernel(SDPBackend.MATH):
                grads, loss_now = gradient(stacked, x[i], y[i])
            squares = torch.stack([g.flatten(1).square().sum(1) for g in grads.values()])
            scale = (config.grad_clip / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
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
    """How far the fused AdamW is from the plain one where a gradient's axes lie in another order.

    One update of rate 0.1. `vmap` hands out such gradients, and nothing warns.
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
