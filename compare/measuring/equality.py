"""Proves that the contestants are equal: gives them one set of weights, and compares the outputs.

Differences are relative to Linen's results. The yardstick for training is Linen against itself,
with weights moved by a rounding error, and trained on the same batches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from compare import contestants, weights
from compare.contestants import CACHED, CONTESTANTS, WHOLE, Contestant, ways_to_sample
from compare.trees import Arrays, flatten
from gptjax.config import RunConfig

# Tolerances, because two libraries add float32 numbers in different orders.
TOLERANCES = {"logits": 1e-5, "gradient": 1e-4, "losses": 1e-3}
STEPS = 60
TOKENS = 512  # per batch of the proof; with fewer, the rounding of one token matters more
# The highest learning rate and the shortest warm-up. With shakespeare-cpu's own settings, the
# yardstick below moved by 0.0095 within 100 updates, because ReLU has kinks and AdamW divides by
# gradients that are nearly zero. Nothing can be proven with these settings.
LEARNING_RATE, WARMUP = 1e-4, 50
# The smallest scale of the initial weights. With 0.02, the first gradients of queries and keys are
# near AdamW's epsilon, so rounding alone decides in which direction a weight moves.
INIT_STD = 0.08
REFERENCE, YARDSTICK = "linen", "linen, moved by a rounding error"
ROUNDING = 1e-7
Proof = dict[str, Any]


def prove(
    names: list[str],
    run_config: RunConfig,
    x: np.ndarray,
    y: np.ndarray,
    tell: Callable[[str], None],
    steps: int = STEPS,
) -> dict[str, Proof]:
    """Trains all on the same batches, then gives all Linen's trained weights and compares outputs.

    Dropout is off, because two libraries do not draw the same masks. GELU replaces ReLU: if an
    input is zero except for rounding, ReLU is on in one implementation and off in another, and the
    two training runs diverge.

    Args:
        x, y: batches (N, B, T); of each, only enough rows for TOKENS tokens are used.

    Returns:
        By contestant: `logits` and `gradient`, the largest relative differences; `losses`, the
        largest difference of a step, in nats; `curve`, the losses; `tokens`, the number of greedy
        tokens generated in all its ways to sample; `same_tokens`, the number that equal Linen's;
        `agrees`, whether everything is within the tolerances.
    """
    rate = min(run_config.train.learning_rate, LEARNING_RATE)
    floor = min(run_config.train.min_lr, rate)
    _one_thread_of_pytorch(names)
    run_config = run_config.replace(dropout=0.0, dtype="float32", learning_rate=rate, min_lr=floor)
    activation = run_config.model.activation
    run_config = run_config.replace(
        activation="gelu" if activation == "relu" else activation,
        init_std=max(run_config.model.init_std, INIT_STD),
        warmup_iters=max(run_config.train.warmup_iters, WARMUP),
        max_iters=max(run_config.train.max_iters, 10 * WARMUP),  # warm-up is at most a tenth of it
    )
    start = weights.shared_params(run_config)
    rows = max(1, TOKENS // x.shape[-1])
    batches = [(x[i % len(x), :rows], y[i % len(x), :rows]) for i in range(steps)]
    others = [name for name in names if name not in (REFERENCE, "torch-compile")]
    built: dict[str, Any] = {}
    proofs: dict[str, Proof] = {}
    for name in [REFERENCE, *others]:
        tell(f"{steps} steps of {name}")
        built[name] = contestants.build(name, run_config)
        proofs[name] = {"curve": _train(name, built[name], run_config, start, batches)}
    tell(f"{steps} steps of {YARDSTICK}")
    trained = weights.from_native(_design(REFERENCE), run_config.model, built[REFERENCE].weights())
    moved = _train(REFERENCE, built[REFERENCE], run_config, _move(start), batches)
    tell("logits, gradients and greedy tokens")
    results = {
        name: _outputs(name, contestant, run_config, trained, batches[0])
        for name, contestant in built.items()
    }
    for name, result in results.items():
        proofs[name] |= _proof(results[REFERENCE], result)
        proofs[name]["losses"] = _largest(proofs[name]["curve"], proofs[REFERENCE]["curve"])
        proofs[name]["agrees"] = agrees(proofs[name])
    proofs[YARDSTICK] = {"curve": moved, "losses": _largest(moved, proofs[REFERENCE]["curve"])}
    return proofs


class Outputs(NamedTuple):
    """A contestant's outputs for one set of weights; tokens are (ways, B, new)."""

    logits: np.ndarray
    gradient: Arrays
    tokens: np.ndarray


def _outputs(
    name: str, contestant: Contestant, run_config: RunConfig, params: Any, batch: Any
) -> Outputs:
    """Computes outputs for weights in gptjax's tree. The gradient has its names, but is flat."""
    cfg, (x, y) = run_config.model, batch
    contestant.set_weights(weights.to_native(_design(name), cfg, params))
    gradient = weights.from_native(_design(name), cfg, contestant.gradient(x, y))
    prompt = x[:2, : max(1, cfg.block_size // 8)]
    ways = [way for way in ways_to_sample(name) if way in (CACHED, WHOLE)]  # tests cover the others
    tokens = [contestant.generate(prompt, cfg.block_size, way) for way in ways]
    new = np.stack(tokens)[:, :, prompt.shape[1] :] if tokens else np.zeros((0, 2, 0), np.int32)
    return Outputs(contestant.logits(x), flatten(gradient), new)


def _proof(ours: Outputs, theirs: Outputs) -> Proof:
    return {
        "logits": float(np.abs(theirs.logits - ours.logits).max() / np.abs(ours.logits).max()),
        "gradient": gradient_difference(ours.gradient, theirs.gradient),
        "tokens": int(theirs.tokens.size),
        # All ways to sample are compared with Linen's cached one.
        "same_tokens": sum(int((way == ours.tokens[0]).sum()) for way in theirs.tokens),
    }


def _design(name: str) -> str:
    return CONTESTANTS[name].design


def _one_thread_of_pytorch(names: list[str]) -> None:
    """Uses one thread: with JAX in the same process, two PyTorch threads are ten times slower."""
    if "torch" in names:
        import torch

        torch.set_num_threads(1)


def agrees(proof: Proof) -> bool:
    """Whether every difference is within its tolerance, and every greedy token is the same."""
    return proof["tokens"] == proof["same_tokens"] and all(
        proof[what] <= tolerance for what, tolerance in TOLERANCES.items()
    )


def gradient_difference(ours: Arrays, theirs: Arrays) -> float:
    """The largest relative difference of one parameter's gradient, in Euclidean norms.

    Some gradients are zero in theory (a key's bias, because of the softmax), so both sides contain
    only rounding errors. So the denominator includes a hundredth of the largest norm.
    """
    norms = {name: np.linalg.norm(g) for name, g in ours.items()}
    floor = max(norms.values()) / 100
    return max(
        float(np.linalg.norm(ours[name] - theirs[name]) / (norms[name] + floor)) for name in ours
    )


def _train(
    name: str, contestant: Contestant, run_config: RunConfig, params: Any, batches: list
) -> list[float]:
    contestant.set_weights(weights.to_native(_design(name), run_config.model, params))
    return [float(contestant.step(contestant.put(*batch))) for batch in batches]


def _move(params: Any) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: a * (1 + ROUNDING * rng.standard_normal(a.shape).astype(np.float32)), params
    )


def _largest(a: list[float], b: list[float]) -> float:
    return float(np.abs(np.array(a) - np.array(b)).max())
