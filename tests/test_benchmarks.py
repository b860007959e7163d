"""What the training benchmarks make of their measurements. That they measure, .ci/run shows."""

import pytest

from benchmarks import accelerator, train_step
from benchmarks.arithmetic import train_flops

ROW = {"dtype": "float32", "compile": 1.0, "memory": 100.0}


def test_the_best_variant_of_each_side_counts():
    config = train_step.TOY["toy"]
    rows = [
        ROW | {"name": "gptjax, float32", "step": [0.01, 0.02, 0.03]},
        ROW | {"name": "gptjax, bfloat16", "step": [0.1]},
        ROW | {"name": "PyTorch, float32", "step": [0.05], "memory": 50.0},
        ROW | {"name": "PyTorch, compiled, float32", "step": [0.04]},
        {
            "name": "PyTorch, compiled, bfloat16",
            "dtype": "bfloat16",
            "step": [],
            "why": "no kernel",
        },
    ]
    text = train_step.table("toy", config, rows, {"float32": 1e12, "bfloat16": 1e12})
    assert "gptjax, float32 makes 2.00 times the tokens/s of PyTorch, compiled, float32" in text
    assert "at 1.00 times its peak memory" in text
    assert "| PyTorch, compiled, bfloat16 | no kernel |" in text
    tokens = config.train.batch_size * config.model.block_size
    assert f"| {tokens / 0.02:,.0f} " in text
    share = train_flops(config.model) * tokens / 0.02 / 1e12
    assert f"| {share:.0%} |" in text


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("cpu", None),
    ],
)
def test_a_device_is_found_in_the_data_sheets(kind, flops):
    assert accelerator.peak(kind) == flops


def test_seeds_are_averaged():
    run = {"best": 1.5, "best_step": 3, "final": 1.6, "seconds": 1.0, "wall": 2.0}
    text = accelerator.quality([run | {"seed": 0}, run | {"seed": 1, "best": 1.4}])
    assert text.splitlines()[-1] == "| mean | 1.4500 | | 1.6000 | | |"
