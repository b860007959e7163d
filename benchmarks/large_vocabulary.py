"""Compares the loss of GPT-2's vocabulary in pieces with the plain loss: memory and time.

python benchmarks/large_vocabulary.py                        2 layers of gpt2's shape, 8,192 tokens
python benchmarks/large_vocabulary.py --layers 12 --remat    all its layers

The logits of 8,192 tokens take 1.6 GB. Their share of the memory depends on what the layers save
for the backward pass, which is little with --remat. With 12 layers, contexts of 1,024 tokens and no
--remat, a CPU needs more than 22 GB for either form.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

import jax  # noqa: E402

from gptjax.backends.devices import describe, platform  # noqa: E402
from gptjax.backends.execution import suited  # noqa: E402
from gptjax.loss import summed_loss, token_losses  # noqa: E402
from gptjax.model import GPT, forward  # noqa: E402
from gptjax.presets import preset_for  # noqa: E402
from gptjax.training import init_params  # noqa: E402


def main() -> None:
    """Prints a line for each form: XLA's temporaries, and the median time of a gradient."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--block-size", type=int, default=256)
    parser.add_argument("--remat", action="store_true", help="as train.py's")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    run_config = preset_for(platform(), "gpt2")
    run_config = run_config.replace(
        n_layer=given.layers, block_size=given.block_size, remat=given.remat
    )
    model: Any = suited(GPT(run_config.model), run_config, platform())
    shape = given.sequences, run_config.model.block_size
    x_BT = jax.random.randint(jax.random.key(1), shape, 0, run_config.model.vocab_size)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))

    def plain(params: Any, x_BT: jax.Array) -> jax.Array:
        return token_losses(forward(model, params, x_BT), x_BT).mean()

    def pieces(params: Any, x_BT: jax.Array) -> jax.Array:
        return summed_loss(model, params, x_BT, x_BT) / x_BT.size

    of = f"{given.layers} layers{', remat' if given.remat else ''}"
    print(f"{describe()}, {of}, {shape[0]} x {shape[1]} tokens", flush=True)
    forms = {"plain": plain, "in pieces": pieces}
    programs = {
        name: jax.jit(jax.grad(f)).lower(params, x_BT).compile() for name, f in forms.items()
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(given.rounds):  # in turns, so that both have the same noise
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(params, x_BT))
            times[name].append(time.perf_counter() - began)
    for name, program in programs.items():
        memory: Any = program.memory_analysis()
        size = memory.temp_size_in_bytes / 1e9
        print(f"{name}: {size:.2f} GB, {statistics.median(times[name]):.3f} s")


if __name__ == "__main__":
    main()
