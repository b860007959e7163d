"""Wraps torch_gpt.py in the interface of contestants.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compare import torch_gpt
from compare.contestants import CACHED
from compare.trees import Arrays

if TYPE_CHECKING:
    from gptjax.config import RunConfig


class Torch:
    """Holds the model, the optimizer and the schedule, which hold their own state."""

    def __init__(self, run_config: RunConfig, compiled: bool) -> None:
        self.run_config, self.compiled = run_config, compiled
        self.training = torch_gpt.make(run_config, run_config.seed, compiled=compiled)

    def set_weights(self, arrays: Arrays) -> None:
        seed = self.run_config.seed
        self.training = torch_gpt.make(self.run_config, seed, compiled=self.compiled)
        with torch.no_grad():
            for name, p in self.training[0].named_parameters():
                p.copy_(torch.from_numpy(np.array(arrays[name])))

    def weights(self) -> Arrays:
        return {n: p.detach().numpy().copy() for n, p in self.training[0].named_parameters()}

    def logits(self, x_BT: np.ndarray) -> np.ndarray:
        model = self.training[0].eval()
        with torch.inference_mode():
            logits = torch_gpt.forward(model, torch.from_numpy(x_BT).long())
        model.train()
        return logits.numpy()

    def gradient(self, x_BT: np.ndarray, y_BT: np.ndarray) -> Arrays:
        model = self.training[0].eval()
        model.zero_grad()
        torch_gpt.loss(model, *self.put(x_BT, y_BT)).backward()
        model.train()
        grads = {
            n: np.array(p.grad.numpy()) for n, p in model.named_parameters() if p.grad is not None
        }
        model.zero_grad()
        return grads

    def put(self, x: np.ndarray, y: np.ndarray) -> Any:
        return tuple(torch.from_numpy(np.array(ids)).long() for ids in (x, y))

    def step(self, batch: Any) -> Any:
        return torch_gpt.train_step(
            *self.training, *batch, grad_clip=self.run_config.train.grad_clip
        )

    def steps(self, batches: Any) -> Any:
        return torch.stack([self.step(batch) for batch in zip(*batches, strict=True)])

    def generate(self, prompt_BT: np.ndarray, max_new_tokens: int, way: str = CACHED) -> np.ndarray:
        prompt, cached = torch.from_numpy(np.array(prompt_BT)).long(), way == CACHED
        model = self.training[0]
        return torch_gpt.generate(model, prompt, max_new_tokens, 0.0, cached=cached).numpy()

    def save(self, path: Path) -> None:
        torch_gpt.save(path, *self.training)

    def load(self, path: Path) -> None:
        torch_gpt.load(path, *self.training)
