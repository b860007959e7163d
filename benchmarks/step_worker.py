"""Runs one contestant of the training benchmarks in its own process: trains steps on demand.

    python -m benchmarks.step_worker LIBRARY CONFIG.json

LIBRARY is `gptjax`, `torch` or `torch-compile`. The text is random, because its content does not
affect the time. Each side trains like its own script: this project with many updates per dispatch,
PyTorch batch by batch, as nanoGPT does.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compare.measuring.worker import answer, peak_memory, read_config

Steps = Callable[[int], float]  # trains this many steps, and returns the last loss


def main(library: str, path: Path) -> None:
    """Builds the contestant, reports its device, and trains until its input ends."""
    tokens = np.random.default_rng(0).integers(0, 65, 1_000_000)
    if library == "gptjax":
        steps, memory, about = ours(path, tokens)
    else:
        steps, memory, about = theirs(path, tokens, compiled=library == "torch-compile")
    answer(**about)
    for line in sys.stdin:
        count, began = json.loads(line)["count"], time.perf_counter()
        loss = steps(count)
        answer(seconds=(time.perf_counter() - began) / count, memory=memory(), loss=loss)


def ours(path: Path, tokens: np.ndarray) -> tuple[Steps, Callable[[], float], dict[str, Any]]:
    """Makes a function that trains with train.py's updates and dispatches."""
    import jax
    from jax import numpy as jnp

    from gptjax.backends.devices import describe, platform
    from gptjax.backends.execution import describe_attention, suited, with_micro_batches
    from gptjax.config import RunConfig
    from gptjax.model import GPT
    from gptjax.training import init_state, make_keys, make_train_loop

    run_config = RunConfig.from_dict(json.loads(path.read_text()))
    run_config = with_micro_batches(run_config, platform())
    keys = make_keys(run_config.seed)
    model = suited(GPT(run_config.model), run_config, platform())
    attention = describe_attention(model, platform())
    loop = make_train_loop(model, run_config)
    on_device = jnp.asarray(tokens.astype(np.uint8))
    state = jax.jit(lambda key: init_state(model, run_config, key))(keys.params)
    done = 0

    def steps(count: int) -> float:
        nonlocal state, done
        done += count
        state, metrics = loop(state, on_device, keys, done)
        return metrics.last.loss.item()

    def memory() -> float:
        stats = jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] / 2**20 if stats else peak_memory()

    return steps, memory, {"device": describe(), "attention": attention}


def theirs(
    path: Path, tokens: np.ndarray, compiled: bool
) -> tuple[Steps, Callable[[], float], dict[str, Any]]:
    """Makes a function that trains the PyTorch twin with nanoGPT's batches."""
    import torch

    from compare import torch_gpt

    run_config = read_config("torch", path)
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    torch.set_float32_matmul_precision("high")  # TF32, as in nanoGPT; a CPU does not have it
    training = torch_gpt.make(run_config, run_config.seed, device=device, compiled=compiled)
    text = torch.from_numpy(tokens)
    B, T = run_config.train.batch_size, run_config.model.block_size
    if run_config.train.gradient_accumulation_steps != 1:
        raise ValueError("the twin's step is measured without gradient accumulation")

    def batch() -> Any:
        starts = torch.randint(len(text) - T, (B,)).tolist()
        both = [torch.stack([text[i + d : i + d + T] for i in starts]) for d in (0, 1)]
        return [x.pin_memory().to(device, non_blocking=True) if gpu else x for x in both]

    def steps(count: int) -> float:
        loss: Any = None
        for _ in range(count):
            loss = torch_gpt.train_step(*training, *batch(), grad_clip=run_config.train.grad_clip)
        return loss.item()

    def memory() -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if gpu else peak_memory()

    name = torch.cuda.get_device_name() if gpu else f"cpu, {torch.get_num_threads()} threads"
    return steps, memory, {"device": f"{name}, torch {torch.__version__}"}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
