"""The GPT of `GPTConfig` in PyTorch, class by class, as the lecture writes it.

    model, optimizer, schedule = make(run_config, seed=0)
    loss = train_step(model, optimizer, schedule, x_BT, y_BT)     # changes all three
    text = generate(model, prompt_BT, max_new_tokens=100)

Attention uses one fused projection and PyTorch's own kernel. The parameters have nanoGPT's names,
so `gptjax.interop.to_torch` makes weights for this model, and `from_nanogpt` reads its weights if
nanoGPT supports the configuration. Unlike gptjax.model, the model is stateful: a module holds its
weights, and `train()` and `eval()` switch dropout on and off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from compare.torch_sampling import generate as generate

if TYPE_CHECKING:  # at run time, nothing of gptjax, which would bring JAX
    from gptjax.config import GPTConfig, RunConfig, TrainConfig

ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
}


class MultiHeadAttention(nn.Module):
    """Causal self-attention of all heads at once: (B, T, C) to (B, T, C)."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.n_head = cfg.n_head
        self.dropout = cfg.dropout
        self.c_attn = nn.Linear(cfg.n_embd, 3 * cfg.n_embd, bias=cfg.qkv_bias)
        self.c_proj = nn.Linear(cfg.n_embd, cfg.n_embd, bias=cfg.bias)
        self.resid_dropout = nn.Dropout(cfg.dropout)

    def forward(self, x_BTC: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        """Writes keys and values at positions from `start` into a cache (2, B, H, N, D), if any."""
        q_BHTD, k_BHSD, v_BHSD = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for part in self.c_attn(x_BTC).chunk(3, dim=-1)
        )
        if cache is not None:
            end = start + x_BTC.shape[1]
            cache[0, :, :, start:end], cache[1, :, :, start:end] = k_BHSD, v_BHSD
            k_BHSD, v_BHSD = cache[:, :, :, :end]
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD,
            k_BHSD,
            v_BHSD,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=start == 0,  # later, the only query sees all keys
        )
        return self.resid_dropout(self.c_proj(y_BHTD.transpose(1, 2).flatten(-2)))


class FeedForward(nn.Module):
    """C to 4C, activation, back to C, at each position separately."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(cfg.n_embd, 4 * cfg.n_embd, bias=cfg.bias)
        self.activation = ACTIVATIONS[cfg.activation]()
        self.c_proj = nn.Linear(4 * cfg.n_embd, cfg.n_embd, bias=cfg.bias)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.activation(self.c_fc(x_BTC))))


class Block(nn.Module):
    """Communication, then computation, each added to the residual stream after a LayerNorm."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(cfg.n_embd, bias=cfg.ln_bias)
        self.attn = MultiHeadAttention(cfg)
        self.ln_2 = nn.LayerNorm(cfg.n_embd, bias=cfg.ln_bias)
        self.mlp = FeedForward(cfg)

    def forward(self, x_BTC: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        x_BTC = x_BTC + self.attn(self.ln_1(x_BTC), cache, start)
        return x_BTC + self.mlp(self.ln_2(x_BTC))


class TorchGPT(nn.Module):
    """Token ids (B, T), int64, to logits for the next token at every position, (B, T, V).

    Its initial weights have the same distribution as the JAX model's, but other values.
    """

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.config = cfg
        self.wte = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.wpe = nn.Embedding(cfg.block_size, cfg.n_embd)
        self.dropout = nn.Dropout(cfg.dropout if cfg.embd_dropout else 0.0)
        self.h = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layer))
        self.ln_f = nn.LayerNorm(cfg.n_embd, bias=cfg.ln_bias)
        self.lm_head = nn.Linear(cfg.n_embd, cfg.vocab_size, bias=cfg.head_bias)
        if cfg.tie_embeddings:
            self.lm_head.weight = self.wte.weight
        self.apply(self._init)
        if cfg.scaled_residual_init:
            for name, weight in self.named_parameters():
                if name.endswith("c_proj.weight"):
                    nn.init.normal_(weight, std=cfg.init_std * (2 * cfg.n_layer) ** -0.5)

    def forward(
        self, x_BT: Tensor, caches: Sequence[Tensor | None] | None = None, start: int = 0
    ) -> Tensor:
        """Logits at the positions from `start`. The caches, if any, have the earlier positions."""
        bfloat16 = self.config.dtype == "bfloat16"
        with torch.autocast(x_BT.device.type, torch.bfloat16, enabled=bfloat16):
            positions_T = torch.arange(start, start + x_BT.shape[1], device=x_BT.device)
            x_BTC = self.dropout(self.wte(x_BT) + self.wpe(positions_T))
            for block, cache in zip(self.h, caches or [None] * len(self.h), strict=True):
                x_BTC = block(x_BTC, cache, start)
            return self.lm_head(self.ln_f(x_BTC)).float()

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


Optimizer = torch.optim.AdamW
Schedule = torch.optim.lr_scheduler.LambdaLR


def make(
    run_config: RunConfig, seed: int, device: str = "cpu", compiled: bool = False
) -> tuple[TorchGPT, Optimizer, Schedule]:
    """Makes a new model in training mode, its optimizer, and its learning rate schedule.

    Args:
        compiled: apply `torch.compile` to the forward pass, and so to the backward pass.
    """
    torch.manual_seed(seed)
    model = TorchGPT(run_config.model).to(device)
    if compiled:
        model.compile()
    optimizer = make_optimizer(run_config.train, model)
    return model, optimizer, make_schedule(run_config.train, optimizer)


def make_optimizer(train_config: TrainConfig, model: nn.Module) -> Optimizer:
    """Fused AdamW. Only matrices decay, unless the config says `decay="all"`."""
    every = train_config.decay == "all"
    decayed = [p for p in model.parameters() if every or p.ndim > 1]
    others = [p for p in model.parameters() if not every and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": train_config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    betas = (train_config.beta1, train_config.beta2)
    groups = [group for group in groups if group["params"]]
    return Optimizer(groups, lr=train_config.learning_rate, betas=betas, fused=True)


def make_schedule(train_config: TrainConfig, optimizer: Optimizer) -> Schedule:
    """Linear warm-up over at most a tenth of the run, then cosine or linear decay to `min_lr`."""
    warmup = min(train_config.warmup_iters, train_config.max_iters // 10)
    floor = train_config.min_lr / train_config.learning_rate if train_config.learning_rate else 0.0

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min((step - warmup) / max(train_config.max_iters - warmup, 1), 1.0)
        linear = train_config.schedule == "linear"
        left = 1 - done if linear else 0.5 * (1 + math.cos(math.pi * done))
        return floor + (1 - floor) * left

    return Schedule(optimizer, factor)


def forward(model: nn.Module, x_BT: Tensor) -> Tensor:
    """Logits (B, T, V), float32; with dropout if the model is in training mode."""
    return model(x_BT)


def loss(model: nn.Module, x_BT: Tensor, y_BT: Tensor) -> Tensor:
    """Mean cross entropy, nats per token."""
    return F.cross_entropy(model(x_BT).flatten(0, 1), y_BT.flatten())


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    x_BT: Tensor,
    y_BT: Tensor,
    grad_clip: float = 1.0,
) -> Tensor:
    """Updates in place; returns the loss before it, on its device. `grad_clip` 0: no clipping."""
    optimizer.zero_grad(set_to_none=True)
    value = loss(model, x_BT, y_BT)
    value.backward()
    if grad_clip > 0:
        nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    schedule.step()
    return value.detach()


def save(path: Path, model: nn.Module, optimizer: Optimizer, schedule: Schedule) -> None:
    """Saves weights, moments, step and the global random state in one safetensors file."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in moments.items()}
    tensors["step"] = torch.tensor(schedule.last_epoch)
    tensors["rng"] = torch.get_rng_state()
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "state.safetensors")


@torch.no_grad()
def load(path: Path, model: nn.Module, optimizer: Optimizer, schedule: Schedule) -> None:
    """Loads into all three in place, and sets the global random state."""
    tensors = load_file(path / "state.safetensors")
    for name, p in model.named_parameters():
        p.copy_(tensors[f"model.{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            moments.setdefault(int(i), {})[name] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    schedule.load_state_dict(schedule.state_dict() | {"last_epoch": int(tensors["step"])})
    for group, factor in zip(optimizer.param_groups, schedule.lr_lambdas, strict=True):
        group["lr"] = group["initial_lr"] * factor(schedule.last_epoch)
    torch.set_rng_state(tensors["rng"])
