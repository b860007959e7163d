"""The page's section on what was done to be fair."""

from typing import Any


def section(results: dict[str, Any]) -> str:
    """Returns the section. The processes reported their numbers of threads."""
    threads = sorted({about["threads"] for about in results["processes"].values()})
    same = f"{threads[0]} threads each" if len(threads) == 1 else f"threads as listed ({threads})"
    return f"""## What was done to be fair

- **The same work**: the same weights, token ids, clipping, warm-up and schedule; AdamW with the
  same decay; float32 for parameters, moments, softmax and loss; the same greedy decoding. The
  tables above check it.
- **The optimizer is AdamW**, even if the preset has Muon, as `shakespeare-cpu` does. Every library
  has AdamW, or it is easily written by hand. Muon is this project's own code: the others would have
  to import it, and it would add the same products to each.
- **The same machine at the same time**: {same}; one process works while the others wait, in an
  order that changes with each round. Batches are in memory before the clock starts, and each turn
  ends when its last loss is known.
- **Compilation and start-up are measured separately**: steps are timed after three have run.
  Compilation caches on disk are off.
- **Linen**: the plain form is the model in `gptjax.model`; the tuned form is what `train.py` trains
  with on a CPU. It samples with `gptjax.inference.cache` in the loop that all three on JAX share.
  `gptjax.generate`, which users call, has a row of its own.
- **NNX**: `nnx.jit` with donated model and optimizer, called through `nnx.cached_partial` as NNX's
  guide advises; `nnx.Optimizer` with `wrt`; `nnx.scan` for several steps per dispatch. The model is
  split once for sampling and not at each call, as the guide advises for loops.
  [log/comparison-guides.md](log/comparison-guides.md) checks its guides point by point.
- **Plain JAX**: the same cache as the others, a pytree passed in and out.
- **PyTorch**: `scaled_dot_product_attention` (its fused kernel), one projection for query, key and
  value, fused AdamW, `zero_grad(set_to_none=True)`, and for sampling `inference_mode` and a cache;
  once more with `torch.compile`. Its process does not import JAX. Without a cache it reads the text
  so far, as is usual in PyTorch; JAX reads a whole window, because a compiled program has fixed
  shapes. [The same log](log/comparison-guides.md) checks PyTorch's tuning guide.
- **Sampling, tuned**: the injected products are for training. For sampling, `gptjax.generate` packs
  the heads' weights side by side before its loop; that has a row of its own, for all three.
- **Checkpoints** contain weights, moments and step, but give different guarantees. Linen's are this
  project's: Orbax, a sha256 of every file, a flush to disk. NNX writes with Orbax, PyTorch writes
  one safetensors file (`torch.save` writes a pickle), and plain JAX one `.npz`.
- **Parameters**: in JAX, there is one kernel per head; in PyTorch, one for all heads. Each is the
  faster form for its library.
- **Dropout** is the preset's. If it is on, each library draws its own masks.
"""
