"""Measures the page of a run in headless Chromium: time to the first picture, speed, memory.

python benchmarks/page.py runs/big                 a minute or two; needs chromium, chromium-driver

It measures the run's page, and the page of a model with random weights that has the `shakespeare`
preset's size. It also measures how much the validation loss changes when the weights are rounded to
float16.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from benchmarks.browser import DRIVER, Browser, browser  # noqa: E402
from compare.measuring.machine import versions  # noqa: E402
from gptjax.page.build import build_page  # noqa: E402
from gptjax.page.weights import rounded  # noqa: E402
from gptjax.presets import PRESETS  # noqa: E402
from gptjax.store import runs  # noqa: E402
from gptjax.text.splitting import read_texts  # noqa: E402
from gptjax.tokenizer import CharTokenizer  # noqa: E402
from gptjax.training import evaluate, init_params  # noqa: E402

# Uses the page's own controls to write this many tokens, and returns the milliseconds.
WRITE = """
const count = document.querySelectorAll(".settings input[type=number]")[2];
const write = document.querySelector(".buttons .primary");
while (write.disabled) await new Promise((resolve) => setTimeout(resolve, 20));
count.value = given[0];
const began = performance.now();
write.click();
do await new Promise((resolve) => setTimeout(resolve, 20)); while (write.disabled);
return performance.now() - began;
"""
FIRST_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
FIRST_TOKEN = """
const paper = document.querySelector(".paper");
while (!paper.children.length) await new Promise((resolve) => setTimeout(resolve, 5));
return performance.now();
"""


def random_run() -> runs.Run:
    """Makes a model with the size of the `shakespeare` preset's."""
    config = PRESETS["shakespeare"].replace(dtype="float32")
    model = runs.make_model(config)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    characters = "".join(map(chr, range(32, 32 + config.model.vocab_size)))
    return runs.Run(model, config, params, CharTokenizer(characters), 0)


def measure(window: Browser, page: Path, tokens: int) -> dict[str, float]:
    """Measures milliseconds to the first picture and the first token, and tokens per second."""
    window.open(page)
    found = {"first picture, ms": window.run(FIRST_PAINT), "text, ms": window.run(FIRST_TOKEN)}
    window.run(WRITE, tokens // 5)  # warm up, until the code is compiled
    found["tokens per second"] = 1000 * tokens / window.run(WRITE, tokens)
    return found


def memory(window: Browser, page: Path) -> list[float]:
    """MB of the page's heap after 2,500 tokens, and after 5,000."""
    window.open(page)
    used = []
    for _ in range(2):
        window.run(WRITE, 2500)
        window.tell("HeapProfiler.collectGarbage")
        used.append(window.run("return performance.memory.usedJSHeapSize") / 1e6)
    return used


def main() -> int:
    """Returns exit status 0, or 2 without Chromium."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    args = parser.parse_args()
    if DRIVER is None:
        print("page.py: error: it needs chromium and chromium-driver", file=sys.stderr)
        return 2
    run = runs.load_run(args.run)
    print(versions())
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        print(window.run("return navigator.userAgent"))
        for name, one, tokens in (("the run", run, 1000), ("shakespeare", random_run(), 100)):
            page = Path(folder, f"{name}.html")
            # Without samples, whose letters the random model may lack, it begins with no prompt.
            of = args.run if one is run else Path(folder)
            page.write_text(build_page(of, one), encoding="utf-8")
            size = page.stat().st_size / 1e6
            found = measure(window, page, tokens)
            print(f"{name}, {size:.1f} MB: {', '.join(f'{k} {v:.0f}' for k, v in found.items())}")
        used = memory(window, Path(folder, "the run.html"))
        print(f"heap after 2,500 and 5,000 tokens: {used[0]:.1f} and {used[1]:.1f} MB")
    began = time.monotonic()
    val = jnp.asarray(read_texts(run.config, args.data_dir, lambda _: None).val)
    losses = [evaluate(run.model, params, val) for params in (run.params, rounded(run.params))]
    print(f"validation loss: {losses[0]:.6f} in float32, {losses[1]:.6f} in float16", end=" ")
    print(f"({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
