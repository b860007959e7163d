"""Sampling from torch_gpt.py's model, with or without a cache of keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.inference_mode()
def generate(
    model: Any,
    prompt_BT: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    *,
    cached: bool = True,
) -> Tensor:
    """The prompts and the new tokens, (B, T + max_new_tokens); temperature 0 is greedy.

    Args:
        cached: keep keys and values while they fit into block_size. Otherwise, and beyond
            block_size, each token takes a forward pass over the window, as in the lecture.
    """
    was_training = model.training
    model.eval()
    cfg, (B, T) = model.config, prompt_BT.shape
    N, weight = T + max_new_tokens, model.wte.weight
    shape = (2, B, cfg.n_head, min(N, cfg.block_size), cfg.n_embd // cfg.n_head)
    caches = [torch.empty(shape, device=weight.device) for _ in model.h] if cached else None
    tokens_BN = F.pad(prompt_BT, (0, max_new_tokens))
    for n in range(T, N):
        if caches is None or n > cfg.block_size:
            logits_BTV = model(tokens_BN[:, max(0, n - cfg.block_size) : n])
        else:
            start = 0 if n == T else n - 1
            logits_BTV = model(tokens_BN[:, start:n], caches, start)
        logits_BV = logits_BTV[:, -1]
        if temperature == 0:
            tokens_BN[:, n] = logits_BV.argmax(-1)
            continue
        if top_k is not None:
            lowest_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1])).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < lowest_B1, -torch.inf)
        p_BV = F.softmax(logits_BV / temperature, dim=-1)
        tokens_BN[:, n] = torch.multinomial(p_BV, 1, generator=generator)[:, 0]
    model.train(was_training)
    return tokens_BN
