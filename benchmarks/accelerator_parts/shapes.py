"""The shapes to measure, by name, and the toy shapes that can replace them."""

from benchmarks import train_step
from gptjax.config import RunConfig
from gptjax.loss import LARGE_VOCABULARY

SHAPES = {
    "shakespeare": train_step.SHAPES["shakespeare"],
    "shakespeare, no dropout": train_step.SHAPES["shakespeare, no dropout"],
    "GPT-2 124M": train_step.SHAPES["GPT-2 124M"].replace(batch_size=16),
}


def shape_of(name: str, quick: bool) -> RunConfig:
    """The configuration with this name; with `quick`, a toy that uses the same code."""
    run_config = SHAPES[name].replace(dtype="bfloat16")
    if not quick:
        return run_config
    return train_step.TOY["toy"].replace(
        dropout=run_config.model.dropout,
        scan_layers=run_config.scans_layers,
        vocab_size=min(run_config.model.vocab_size, LARGE_VOCABULARY),
    )
