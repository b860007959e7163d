"""PyTorch's side of sampling.py: nanoGPT's loop, and transformers' GPT-2 with its cache."""

import os
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from compare.torch_gpt import TorchGPT
from gptjax.config import GPTConfig
from gptjax.interop import to_huggingface, to_torch


def contestants(model_config: GPTConfig, params: Any, dtype: str) -> dict[str, Any]:
    """Both contestants with the given weights, stored in bfloat16 if they compute in it."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    as_dtype = getattr(torch, dtype)
    ours = TorchGPT(model_config)
    entries = to_torch(model_config, params).items()
    ours.load_state_dict({k.removeprefix("transformer."): tensor(v) for k, v in entries})
    ours = ours.eval().to(as_dtype)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=model_config.vocab_size,
            n_positions=model_config.block_size,
            n_embd=model_config.n_embd,
            n_layer=model_config.n_layer,
            n_head=model_config.n_head,
            bos_token_id=0,
            eos_token_id=None,
        )
    )
    weights = {k: tensor(v) for k, v in to_huggingface(model_config, params).items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    if unexpected or any("lm_head" not in name for name in missing):
        raise ValueError(f"transformers' model lacks {missing} and does not know {unexpected}")
    theirs.tie_weights()
    theirs = theirs.eval().to(as_dtype)
    return {
        f"nanoGPT's loop, no cache, {dtype}": partial(nanogpt, ours, model_config.block_size),
        f"transformers, cache, {dtype}": partial(transformers, theirs),
    }


def tensor(array: np.ndarray) -> torch.Tensor:
    """Copies an array to a tensor."""
    return torch.from_numpy(array.copy())


@torch.inference_mode()
def nanogpt(
    model: Any, block_size: int, prompt_BT: np.ndarray, n: int, greedy: bool = False
) -> np.ndarray:
    """Generates as nanoGPT does: crop, run the window, take the last position, draw, append."""
    ids_BT = torch.from_numpy(prompt_BT.astype(np.int64))
    for _ in range(n):
        logits_BV = model(ids_BT[:, -block_size:])[:, -1]
        if greedy:
            next_B1 = logits_BV.argmax(-1, keepdim=True)
        else:
            next_B1 = torch.multinomial(F.softmax(logits_BV.float(), dim=-1), num_samples=1)
        ids_BT = torch.cat([ids_BT, next_B1], dim=1)
    return ids_BT.numpy()


@torch.inference_mode()
def transformers(model: Any, prompt_BT: np.ndarray, n: int, greedy: bool = False) -> np.ndarray:
    """Generates with transformers' `generate` and its cache, drawing from all tokens."""
    ids_BT = torch.from_numpy(prompt_BT.astype(np.int64))
    found = model.generate(
        ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        max_new_tokens=n,
        do_sample=not greedy,
        top_k=0,
        use_cache=True,
        pad_token_id=0,
    )
    return found.numpy()
