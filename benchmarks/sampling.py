"""Tokens per second of this project, of nanoGPT's loop in PyTorch, and of transformers' GPT-2.

python benchmarks/sampling.py                      about half an hour on 2 cores
python benchmarks/sampling.py --quick              a toy model, only to check that it works

All use the same random weights with the `shakespeare` preset's size, in one process, taking turns.
First, their greedy tokens in float32 must agree. Writes docs/sampling.json and docs/sampling.png,
and prints the table.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a clone without installing

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from compare.measuring.machine import versions  # noqa: E402
from gptjax.app.pictures import new_figure, save_png  # noqa: E402
from gptjax.files import write_json  # noqa: E402
from gptjax.inference.adapt import with_dtype  # noqa: E402
from gptjax.inference.generation import stream  # noqa: E402
from gptjax.inference.sampling import Sampling  # noqa: E402
from gptjax.model import GPT, config_of, forward, num_params  # noqa: E402
from gptjax.presets import PRESETS  # noqa: E402
from gptjax.training import init_params  # noqa: E402

SETTLE = 0.3  # seconds until the last turn's threads stop waiting for more work
DTYPES = ("float32", "bfloat16")
# Without a cache, a token's time is proportional to its context. If all 250 tokens would take too
# long, some in the middle represent the mean.
NEW, MIDDLE, FEW = 250, 113, 24
Run = Callable[[np.ndarray, int], Any]  # (B, T) prompts and a number of tokens to (B, T + n) ids


def main() -> int:
    """Returns exit status 0 if the contestants agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    preset = PRESETS["shakespeare"].replace(
        activation="gelu_tanh", bias=True, qkv_bias=True, ln_bias=True, dtype="float32", dropout=0.0
    )
    repeats, batches, new = args.repeats, args.batches, NEW
    if args.quick:
        preset = preset.replace(n_layer=2, n_embd=48, block_size=32)
        repeats, batches, new = 2, [1, 2], 20
    model = GPT(preset.model)
    params = jax.jit(partial(init_params, model))(jax.random.key(0))
    params = jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)  # far from uniform
    runs = contestants(model, params)
    agree(runs)
    results: dict[str, Any] = {
        "versions": versions(),
        "parameters": num_params(params),
        "new_tokens": new,
        "read_gb_per_second": bandwidth(),
        "rows": [],
    }
    for batch in batches:
        for row in compare(runs, batch, new, repeats):
            results["rows"].append(row)
            print(line_of(row), flush=True)
    results["positions"] = by_position(model, params, repeats)
    print(table(results))
    if not args.quick:
        write_json(args.out / "sampling.json", results)
        draw(args.out / "sampling.png", results["positions"], config_of(model))
    return 0


def contestants(model: GPT, params: Any) -> dict[str, Run]:
    """The contestants by name; PyTorch's only if it is installed."""
    found: dict[str, Run] = {}
    for dtype in DTYPES:
        ours, stored = with_dtype(model, params, dtype)
        found[f"gptjax, cache, {dtype}"] = partial(cached, ours, stored)
        found[f"gptjax, no cache, {dtype}"] = partial(uncached, ours, stored)
    try:
        from benchmarks import torch_sampling
    except ImportError as error:
        print(f"without {error.name}: pip install -e '.[compare]'", file=sys.stderr)
        return found
    for dtype in DTYPES:
        found |= torch_sampling.contestants(config_of(model), params, dtype)
    return found


def cached(model: Any, params: Any, prompt_BT: np.ndarray, n: int, greedy: bool = False) -> Any:
    """Samples as sample.py does."""
    drawn = stream(
        model,
        params,
        list(prompt_BT),
        jax.random.key(0),
        Sampling(temperature=0.0 if greedy else 1.0),
        max_new_tokens=n,
        window="chunked",
    )
    return np.concatenate([prompt_BT, *(part.ids_BK for part in drawn)], axis=1)


def uncached(model: Any, params: Any, prompt_BT: np.ndarray, n: int, greedy: bool = False) -> Any:
    """The lecture's loop in one program, which computes the whole window for each token."""
    T = prompt_BT.shape[1]
    S = config_of(model).block_size
    padded = np.pad(prompt_BT, ((0, 0), (0, S - T)))
    ids = _uncached(model, params, padded, np.int32(T), np.int32(T + n), np.float32(not greedy))
    return np.asarray(ids)[:, : T + n]


@partial(jax.jit, static_argnums=0)
def _uncached(model: Any, params: Any, ids_BT: Any, start: Any, end: Any, noise: Any) -> Any:
    def fill(n: Any, ids_BT: Any) -> Any:
        logits_BV = forward(model, params, ids_BT)[:, n - 1]
        key = jax.random.fold_in(jax.random.key(0), n)
        logits_BV = logits_BV + noise * jax.random.gumbel(key, logits_BV.shape)
        return ids_BT.at[:, n].set(logits_BV.argmax(-1))

    return jax.lax.fori_loop(start, end, fill, jnp.asarray(ids_BT))


def agree(runs: dict[str, Run]) -> None:
    """Checks that greedy tokens in float32 agree. In bfloat16, rounding may change a token."""
    prompt = np.array([[3, 1, 4, 1, 5]], np.int32)
    texts = {
        name: run(prompt, 20, greedy=True).tolist()  # type: ignore[call-arg]
        for name, run in runs.items()
        if "float32" in name
    }
    first = next(iter(texts.values()))
    different = [name for name, text in texts.items() if text != first]
    if different:
        raise SystemExit(f"other greedy tokens than {next(iter(texts))}: {', '.join(different)}")
    print(f"the same greedy tokens from {', '.join(texts)}", file=sys.stderr)


def compare(runs: dict[str, Run], batch: int, new: int, repeats: int) -> list[dict[str, Any]]:
    """Measures the table's rows for one batch size; the contestants take turns."""
    jobs: dict[str, tuple[np.ndarray, int]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        some = batch > 1 and "no cache" in name and new == NEW
        start = MIDDLE if some else 1
        jobs[name] = np.ones((batch, start), np.int32), FEW if some else new
        began = time.perf_counter()
        run(jobs[name][0], 1)
        rows[name] = {
            "name": name,
            "batch": batch,
            "first_call_seconds": time.perf_counter() - began,
            "measured_tokens": f"{start} to {start + jobs[name][1]}",
            "seconds": [],
            "first_token_seconds": [],
        }
    for _ in range(repeats):
        for name, run in runs.items():
            time.sleep(SETTLE)
            prompt, n = jobs[name]
            began = time.perf_counter()
            run(prompt[:, :1], 1)
            rows[name]["first_token_seconds"].append(time.perf_counter() - began)
            began = time.perf_counter()
            run(prompt, n)
            rows[name]["seconds"].append(time.perf_counter() - began)
    for name, row in rows.items():
        rates = sorted(batch * jobs[name][1] / seconds for seconds in row["seconds"])
        row["tokens_per_second"] = statistics.median(rates)
        row["slowest"], row["fastest"] = rates[0], rates[-1]
    return list(rows.values())


def by_position(model: GPT, params: Any, repeats: int) -> dict[str, list[list[float]]]:
    """Milliseconds per token by position, up to three times block_size, in eighths of it.

    The rest at the end, less than an eighth, is skipped, as it would show the cost of one prefill.
    """
    S = config_of(model).block_size
    step = S // 8
    found: dict[str, list[list[float]]] = {}
    for window, end in (("chunked", 3 * S), ("exact", S + 2 * step)):
        turns = []
        for _ in range(repeats + 1):
            times, began = [], time.perf_counter()
            for part in stream(
                model,
                params,
                [np.zeros(1, np.int32)],
                jax.random.key(0),
                Sampling(),
                max_new_tokens=end,
                window=window,  # type: ignore[arg-type]
                at_once=lambda: step,
            ):
                now = time.perf_counter()
                if part.ids_BK.shape[1] == step:
                    times.append(1000 * (now - began) / step)
                began = now
            turns.append(times)
        medians = np.median(np.array(turns[1:]), axis=0)  # the first turn compiled
        found[window] = [[(i + 0.5) * step, float(ms)] for i, ms in enumerate(medians)]
    return found


def bandwidth() -> float:
    """Gigabytes per second of a pass over 256 MB in JAX, the median of nine."""
    big = jnp.ones(2**26)
    total = jax.jit(jnp.sum)
    total(big).block_until_ready()
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        total(big).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return big.nbytes / statistics.median(seconds) / 1e9


def line_of(row: dict[str, Any]) -> str:
    """A row of the table."""
    first = 1000 * statistics.median(row["first_token_seconds"])
    return (
        f"| {row['batch']} | {row['name']} | {row['tokens_per_second']:,.0f} "
        f"| {row['slowest']:,.0f} to {row['fastest']:,.0f} | {first:,.1f} ms "
        f"| {row['first_call_seconds']:.1f} s | {row['measured_tokens']} |"
    )


def table(results: dict[str, Any]) -> str:
    """All rows, and the conclusion for batch 1."""
    lines = [
        "| batch | what | tokens/s, median | range | first token | first call | positions |",
        "|---|---|---|---|---|---|---|",
        *map(line_of, results["rows"]),
    ]
    best: dict[str, float] = {}
    for row in results["rows"]:
        if row["batch"] == 1:
            what = row["name"].rsplit(", ", 1)[0]
            best[what] = max(best.get(what, 0.0), row["tokens_per_second"])
    ours = best["gptjax, cache"]
    lines += [
        "",
        "At batch 1, the better dtype of each: "
        + ", ".join(f"{ours / rate:.1f} times {what}" for what, rate in best.items()),
        f"One pass over memory: {results['read_gb_per_second']:.1f} GB/s; float32 weights are "
        f"{4 * results['parameters'] / 1e6:.0f} MB, read once for each token at {ours:,.0f} "
        f"tokens/s: {4 * results['parameters'] * ours / 1e9:.1f} GB/s",
        json.dumps(results["versions"]),
    ]
    return "\n".join(lines)


def draw(path: Path, positions: dict[str, list[list[float]]], model_config: Any) -> None:
    """Draws the time per token against position, as a PNG."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for window, color in (("exact", "tab:red"), ("chunked", "tab:blue")):
        axes.plot(*zip(*positions[window], strict=True), "o-", ms=3, color=color, label=window)
    for block in range(1, 4):
        axes.axvline(block * model_config.block_size, color="gray", lw=0.8, ls=":")
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks("{x:g}")
    axes.set_xlabel("position of the token (dotted: multiples of block_size)")
    axes.set_ylabel("ms per token, batch 1")
    axes.grid(alpha=0.3)
    axes.legend(title="--window")
    save_png(figure, path)


if __name__ == "__main__":
    sys.exit(main())
