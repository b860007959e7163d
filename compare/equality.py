"""Proves the contestants equal: one set of weights in all, and what comes out of them.

Differences are relative to this project's own result. The yardstick for training is this project
against itself: its weights moved by a rounding error, trained on the same batches.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from compare import contestants, weights
from compare.contestants import Arrays, Contestant
from gptjax.config import RunConfig

# What the comparison asks for; the float32 of two libraries adds in another order.
TOLERANCES = {"logits": 1e-5, "gradient": 1e-4, "losses": 1e-3}
STEPS = 100
TOKENS = 512  # in a batch of the proof: the fewer, the more one token's rounding can do
# Where the preset's rate is higher, and over so many updates of warm-up at least. At
# shakespeare-cpu's own settings the yardstick below comes 0.0095 apart within 100 updates, because
# ReLU has kinks and AdamW divides by gradients that are nearly zero: nothing could be proven there.
LEARNING_RATE, WARMUP = 1e-4, 50
# At 0.02 the first gradients of queries and keys are near AdamW's epsilon, where rounding alone
# decides which way a weight goes.
INIT_STD = 0.08
REFERENCE, YARDSTICK = "linen", "linen, moved by a rounding error"
ROUNDING = 1e-7
Proof = dict[str, Any]


def prove(
    names: list[str],
    config: RunConfig,
    x: np.ndarray,
    y: np.ndarray,
    tell: Callable[[str], None],
    steps: int = STEPS,
) -> dict[str, Proof]:
    """Trains all on the same batches, then compares them on the weights that training led to.

    Dropout is off: two libraries do not draw the same masks. The learning rate is LEARNING_RATE
    where the preset's is higher, the weights' scale INIT_STD where the preset's is lower, and GELU
    stands in for ReLU, which has a kink: where its input is zero but for rounding, it is on in one
    implementation and off in another, and from there the two trainings part.

    Args:
        x, y: batches (N, B, T); rows of TOKENS tokens in all are used of each.

    Returns:
        By contestant: `logits` and `gradient`, largest differences, relative; `losses`, the
        largest difference of a step, in nats; `curve`, the losses; `tokens`, how many greedy
        tokens there were; `same_tokens`, how many of them agree; `agrees`, all within tolerance.
    """
    rate = min(config.train.learning_rate, LEARNING_RATE)
    floor = min(config.train.min_lr, rate)
    _one_thread_of_pytorch(names)
    config = config.replace(dropout=0.0, dtype="float32", learning_rate=rate, min_lr=floor)
    config = config.replace(
        activation="gelu" if config.model.activation == "relu" else config.model.activation,
        init_std=max(config.model.init_std, INIT_STD),
        warmup_iters=max(config.train.warmup_iters, WARMUP),
        max_iters=max(config.train.max_iters, 10 * WARMUP),  # of which warm-up is at most a tenth
    )
    cfg = config.model
    start = weights.shared_params(config)
    rows = max(1, TOKENS // x.shape[-1])
    batches = [(x[i % len(x), :rows], y[i % len(x), :rows]) for i in range(steps)]
    others = [name for name in names if name not in (REFERENCE, "torch-compile")]
    built: dict[str, Contestant] = {}
    proofs: dict[str, Proof] = {}
    for name in [REFERENCE, *others]:
        tell(f"{steps} steps of {name}")
        built[name] = contestants.build(name, config)
        proofs[name] = {"curve": _train(name, built[name], config, start, batches)}
    tell(f"{steps} steps of {YARDSTICK}")
    trained = built[REFERENCE].weights()
    moved = _train(REFERENCE, built[REFERENCE], config, _move(start), batches)

    tell("logits, gradients and greedy tokens")
    tree = weights.from_native(REFERENCE, cfg, trained)
    prompt, new = x[0, :2, : max(1, cfg.block_size // 8)], cfg.block_size
    results = {}
    for name, contestant in built.items():
        contestant.set_weights(weights.to_native(name, cfg, tree))
        gradient = weights.from_native(name, cfg, contestant.gradient(*batches[0]))
        logits = contestant.logits(batches[0][0])
        results[name] = logits, contestants.flatten(gradient), contestant.generate(prompt, new)
    logits, gradient, tokens = results[REFERENCE]
    for name, (their_logits, their_gradient, their_tokens) in results.items():
        proof = proofs[name]
        proof["logits"] = float(np.abs(their_logits - logits).max() / np.abs(logits).max())
        proof["gradient"] = gradient_difference(gradient, their_gradient)
        proof["losses"] = _largest(proof["curve"], proofs[REFERENCE]["curve"])
        proof["tokens"] = int(tokens[:, prompt.shape[1] :].size)
        proof["same_tokens"] = int((tokens == their_tokens)[:, prompt.shape[1] :].sum())
        proof["agrees"] = agrees(proof)
    proofs[YARDSTICK] = {"curve": moved, "losses": _largest(moved, proofs[REFERENCE]["curve"])}
    return proofs


def _one_thread_of_pytorch(names: list[str]) -> None:
    """In a process that JAX computes in too, PyTorch's threads wait for each other: ten times."""
    if "torch" in names:
        import torch

        torch.set_num_threads(1)


def agrees(proof: Proof) -> bool:
    """Whether all is within its tolerance, and every greedy token the same."""
    return proof["tokens"] == proof["same_tokens"] and all(
        proof[what] <= tolerance for what, tolerance in TOLERANCES.items()
    )


def gradient_difference(ours: Arrays, theirs: Arrays) -> float:
    """The largest difference of a parameter's gradient, relative to it, both as Euclidean norms.

    A gradient that is zero on paper (a key's bias, by the softmax) is rounding on both sides, so
    a hundredth of the largest norm is added to what is divided by.
    """
    norms = {name: np.linalg.norm(g) for name, g in ours.items()}
    floor = max(norms.values()) / 100
    return max(
        float(np.linalg.norm(ours[name] - theirs[name]) / (norms[name] + floor)) for name in ours
    )


def _train(
    name: str, contestant: Contestant, config: RunConfig, params: Any, batches: list
) -> list[float]:
    contestant.set_weights(weights.to_native(name, config.model, params))
    return [float(contestant.step(contestant.put(*batch))) for batch in batches]


def _move(params: Any) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: a * (1 + ROUNDING * rng.standard_normal(a.shape).astype(np.float32)), params
    )


def _largest(a: list[float], b: list[float]) -> float:
    return float(np.abs(np.array(a) - np.array(b)).max())
