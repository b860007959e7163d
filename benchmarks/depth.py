"""Seconds that compiling takes, by number of blocks: scanned and unrolled.

python benchmarks/depth.py               about 2 minutes on 2 cores
python benchmarks/depth.py --scanned 6 12 48 --unrolled 6 12

Compiles what `train.py` compiles before its first step, the initial values and the update, for the
GPT-2 preset at a width of 128. A width changes the arrays and not the program, so it takes as long
for the real width. Processor seconds count both cores, and other work on the machine changes them
less than the clock's seconds.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone, nothing installed

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from gptjax.backends.devices import describe, platform  # noqa: E402
from gptjax.backends.execution import suited  # noqa: E402
from gptjax.model import GPT  # noqa: E402
from gptjax.presets import preset_for  # noqa: E402
from gptjax.training import init_state, make_keys, make_train_loop  # noqa: E402


def main() -> None:
    """Prints a row for each form and depth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scanned", type=int, nargs="*", default=[6, 12, 24, 48])
    parser.add_argument("--unrolled", type=int, nargs="*", default=[6, 12, 24])
    given = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    compile_both(1, scans=False)  # so that the first row does not pay for JAX's own start
    print(f"{describe()}\n\n| blocks | number | initial values | update | processor seconds |")
    print("|---|---|---|---|---|")
    for name, depths in (("scanned", given.scanned), ("unrolled", given.unrolled)):
        for n_layer in depths:
            init, update, processor = compile_both(n_layer, scans=name == "scanned")
            row = f"| {name} | {n_layer} | {init:.1f} s | {update:.1f} s | {processor:.1f} |"
            print(row, flush=True)


def compile_both(n_layer: int, *, scans: bool) -> tuple[float, float, float]:
    """Seconds for the initial values and for the update; processor seconds of both."""
    run_config = preset_for(platform(), "gpt2").replace(
        n_layer=n_layer,
        n_embd=128,
        n_head=4,
        batch_size=4,
        gradient_accumulation_steps=1,
        scan_layers=scans,
    )
    model = suited(GPT(run_config.model), run_config, platform())
    init, key = partial(init_state, model, run_config), make_keys(0).params
    times, began = [time.perf_counter()], time.process_time()
    jax.jit(init).lower(key).compile()
    times.append(time.perf_counter())
    state = jax.eval_shape(init, key)
    tokens = jax.ShapeDtypeStruct((10**6,), jnp.uint16)
    loop: Any = make_train_loop(model, run_config)
    loop.lower(state, tokens, make_keys(0), 1).compile()
    times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1], time.process_time() - began


if __name__ == "__main__":
    main()
