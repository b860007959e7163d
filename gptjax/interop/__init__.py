"""Converts weights from and to the lecture's model, nanoGPT and Hugging Face's GPT-2.

from gptjax.interop import from_lecture

model_config, params = from_lecture(model.state_dict())
logits_BTV = GPT(model_config).apply({"params": params}, x_BT, deterministic=True)
"""

from gptjax.interop.weights import (
    from_huggingface,
    from_lecture,
    from_nanogpt,
    to_huggingface,
    to_lecture,
    to_nanogpt,
    to_torch,
)

__all__ = [
    "from_huggingface",
    "from_lecture",
    "from_nanogpt",
    "to_huggingface",
    "to_lecture",
    "to_nanogpt",
    "to_torch",
]
