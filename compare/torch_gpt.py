"""The GPT of `GPTConfig` in PyTorch, class by class: what the lecture writes, for comparison.

Attention is one fused projection and PyTorch's own kernel. Parameters are called as in nanoGPT, so
`gptjax.interop.to_torch` fills this model and `from_nanogpt` reads it where nanoGPT could be it.
Unlike gptjax.model it is stateful: a module holds its weights, and `train()` and `eval()` switch
dropout on and off.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptjax.config import GPTConfig
from gptjax.interop import to_torch

ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
}


class MultiHeadAttention(nn.Module):
    """Causal self-attention of all heads at once: (B, T, C) to itself."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q_BHTD, k_BHTD, v_BHTD = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for part in self.c_attn(x_BTC).chunk(3, dim=-1)
        )
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD,
            k_BHTD,
            v_BHTD,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
        )
        return self.resid_dropout(self.c_proj(y_BHTD.transpose(1, 2).flatten(-2)))


class FeedForward(nn.Module):
    """C to 4C, activation, back to C, at each position alone."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]()
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.activation(self.c_fc(x_BTC))))


class Block(nn.Module):
    """Communication, then computation, each added to the residual stream after a LayerNorm."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.ln_bias)
        self.attn = MultiHeadAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.ln_bias)
        self.mlp = FeedForward(config)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.attn(self.ln_1(x_BTC))
        return x_BTC + self.mlp(self.ln_2(x_BTC))


class TorchGPT(nn.Module):
    """Token ids (B, T), int64, to the logits of the next token at every position, (B, T, V).

    It has the initial distribution of the JAX model, not the same numbers: `load` copies those.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout if config.embd_dropout else 0.0)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.ln_bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=config.head_bias)
        if config.tie_embeddings:
            self.lm_head.weight = self.wte.weight
        self.apply(self._init)
        if config.scaled_residual_init:
            for name, weight in self.named_parameters():
                if name.endswith("c_proj.weight"):
                    nn.init.normal_(weight, std=config.init_std * (2 * config.n_layer) ** -0.5)

    def forward(self, x_BT: Tensor) -> Tensor:
        positions_T = torch.arange(x_BT.shape[1], device=x_BT.device)
        x_BTC = self.dropout(self.wte(x_BT) + self.wpe(positions_T))
        for block in self.h:
            x_BTC = block(x_BTC)
        return self.lm_head(self.ln_f(x_BTC))

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def load(config: GPTConfig, params: Any) -> TorchGPT:
    """The PyTorch model with the weights of a JAX parameter tree."""
    model = TorchGPT(config)
    arrays = to_torch(config, params)
    model.load_state_dict(
        {name.removeprefix("transformer."): torch.from_numpy(a) for name, a in arrays.items()}
    )
    return model
