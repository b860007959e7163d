"""The lecture's model in PyTorch, with the lecture's module names, which `from_lecture` reads."""

import torch
from torch import Tensor, nn

from gptjax.config import GPTConfig


class LectureHead(nn.Module):
    tril: Tensor

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.query = nn.Linear(cfg.n_embd, cfg.head_size, bias=False)
        self.key = nn.Linear(cfg.n_embd, cfg.head_size, bias=False)
        self.value = nn.Linear(cfg.n_embd, cfg.head_size, bias=False)
        self.register_buffer("tril", torch.ones(cfg.block_size, cfg.block_size).tril())
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        T = x_BTC.shape[1]
        q_BTD, k_BTD = self.query(x_BTC), self.key(x_BTC)
        scores_BTT = q_BTD @ k_BTD.mT / q_BTD.shape[-1] ** 0.5
        scores_BTT = scores_BTT.masked_fill(self.tril[:T, :T] == 0, -torch.inf)
        return self.dropout(scores_BTT.softmax(-1)) @ self.value(x_BTC)


class LectureAttention(nn.Module):
    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(LectureHead(cfg) for _ in range(cfg.n_head))
        self.proj = nn.Linear(cfg.n_embd, cfg.n_embd)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        y_BTC = torch.cat([head(x_BTC) for head in self.heads], dim=-1)
        return self.dropout(self.proj(y_BTC))


class LectureFeedForward(nn.Module):
    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(cfg.n_embd, 4 * cfg.n_embd),
            nn.ReLU(),
            nn.Linear(4 * cfg.n_embd, cfg.n_embd),
            nn.Dropout(cfg.dropout),
        )

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.net(x_BTC)


class LectureBlock(nn.Module):
    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.sa = LectureAttention(cfg)
        self.ffwd = LectureFeedForward(cfg)
        self.ln1 = nn.LayerNorm(cfg.n_embd)
        self.ln2 = nn.LayerNorm(cfg.n_embd)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.sa(self.ln1(x_BTC))
        return x_BTC + self.ffwd(self.ln2(x_BTC))


class LectureGPT(nn.Module):
    """Returns only logits; as in this project, the loss is computed separately."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.token_embedding_table = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.position_embedding_table = nn.Embedding(cfg.block_size, cfg.n_embd)
        self.blocks = nn.Sequential(*(LectureBlock(cfg) for _ in range(cfg.n_layer)))
        self.ln_f = nn.LayerNorm(cfg.n_embd)
        self.lm_head = nn.Linear(cfg.n_embd, cfg.vocab_size)

    def forward(self, x_BT: Tensor) -> Tensor:
        positions_T = torch.arange(x_BT.shape[1])
        x_BTC = self.token_embedding_table(x_BT) + self.position_embedding_table(positions_T)
        return self.lm_head(self.ln_f(self.blocks(x_BTC)))
