"""How the training benchmarks evaluate their measurements. .ci/run checks that they measure."""

import pytest

from benchmarks import race, steps, train_step
from benchmarks.accelerator_parts import device
from gptjax.backends.flops import train_flops
from gptjax.presets import PRESETS

ROW = {"dtype": "float32", "compile": 1.0, "memory": 100.0}


def test_the_best_variant_of_each_side_counts():
    run_config = train_step.TOY["toy"]
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
    text = train_step.table("toy", run_config, rows, {"float32": 1e12, "bfloat16": 1e12})
    assert "gptjax, float32 makes 2.00 times the tokens/s of PyTorch, compiled, float32" in text
    assert "at 1.00 times its peak memory" in text
    assert "| PyTorch, compiled, bfloat16 | no kernel |" in text
    tokens = run_config.train.batch_size * run_config.model.block_size
    assert f"| {tokens / 0.02:,.0f} " in text
    share = train_flops(run_config.model) * tokens / 0.02 / 1e12
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
    assert device.peak(kind) == flops


class Worker:
    """A contestant whose first step compiles, and whose dispatches have an extra cost."""

    def __init__(self, step: float, dispatch: float) -> None:
        self.about, self._step, self._dispatch, self._first = {}, step, dispatch, True

    def ask(self, count: int) -> dict[str, float]:
        compiled, self._first = 9.0 * self._first, False
        seconds = (compiled + self._dispatch) / count + self._step
        return {"seconds": seconds, "memory": 1.0, "loss": 1.0}

    def close(self) -> None:
        pass


def test_one_that_is_slow_for_a_single_step_keeps_its_turns(monkeypatch):
    workers = {
        "gptjax": Worker(0.01, 0.09),
        "torch": Worker(0.02, 0),
        "torch-compile": Worker(1, 0),
    }
    monkeypatch.setattr(steps, "start", lambda entry, *_: workers[entry.library])
    entries = [steps.Entry(library, "float32") for library in workers]
    seen = []
    rows = steps.measure(
        PRESETS["shakespeare"],
        entries,
        turns=3,
        seconds=1.0,
        tell=lambda _: None,
        found=lambda rows: seen.append([len(row["step"]) for row in rows]),
    )
    assert seen[:3] == [[0], [0, 0], [0, 0, 0]]  # each as soon as it has started
    assert seen[-1] == [3, 3, 1]
    assert [len(row["step"]) for row in rows] == [3, 3, 1]
    assert ["why" in row for row in rows] == [False, False, True]
    assert rows[0]["compile"] == pytest.approx(9.08, abs=0.02)


@pytest.mark.parametrize(
    ("speeds", "steps"),
    [
        ([0.1, 0.1], [60, 485]),  # as fast as the short run: one attempt, within the time
        ([0.1, 0.2, 0.2], [60, 485, 242]),  # slower, so over the time: repeated
        ([0.1, 0.05, 0.05], [60, 485, 970]),  # faster, so time is left: repeated
        ([0.1, 0.2, 0.1, 0.2], [60, 485, 242, 485]),  # no more attempts
    ],
)
def test_a_race_is_run_again_until_it_takes_the_time(monkeypatch, speeds, steps):
    left = iter(speeds)

    def run(contestant, steps, seed):
        step = next(left)
        return {"steps": steps, "start": 10.0, "step": step, "seconds": 10.0 + steps * step}

    monkeypatch.setattr(race, "run", run)
    tried = race.fitted(60.0, 60, 1, attempts=3)
    assert [run["steps"] for run in tried] == steps
