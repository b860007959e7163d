"""How the training benchmarks evaluate their measurements. .ci/run checks that they measure."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    finetune,
    preparing,
    race,
    reading,
    real_text,
    steps,
    tokenizing,
    train_step,
    watching,
)
from benchmarks.accelerator_parts import device
from gptjax.app import prepare
from gptjax.backends.flops import train_flops
from gptjax.errors import RunError
from gptjax.presets import PRESETS
from gptjax.text import shell
from gptjax.text.documents import Documents, find

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


def test_each_tokenizer_trains_as_many_steps_as_take_the_same_time():
    assert tokenizing.steps_within(60.0, [0.03, 0.5, 0.02]) == 2000
    assert tokenizing.steps_within(60.0, [0.06]) == 1000


def test_a_time_too_short_for_a_run_is_refused_before_any_training(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tokenizers", reason="needs the extra `data`")
    rows = {"char": {"step": [0.1]}, "bpe 512": {"step": [0.7]}}
    tokenizing.write_json(tmp_path / "tokenizing.json", {"rows": rows})
    monkeypatch.setattr(tokenizing, "trained", None)
    given = ["tokenizing.py", "--train-only", "--minutes", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", given)
    assert tokenizing.main() == 2
    assert "1 minutes are 86 steps with bpe 512" in capsys.readouterr().err


def test_the_table_of_tokenizers_has_what_is_known():
    row = {"vocab_size": 65, "parameters": 1000, "tokens": 1200, "train_tokens": 1000}
    row |= {"tokens_per_update": 100, "bytes_per_token": 1.0, "step": [0.5, 0.1, 0.2], "steps": 30}
    done = {"val_loss": 2.0, "bits_per_byte": 2.5, "best_bits_per_byte": 2.25, "best_step": 20}
    *_, first, second = tokenizing.table({"a": row, "b": row | done}).splitlines()
    assert "| 200.0 | 100.0 to 500.0 | 500 | 30 | 3.0 |" in first
    assert second.endswith("| 3.0 | 2.0000 | 2.500 | 2.250 at 20 |")


@pytest.mark.skipif(not watching.can_watch(), reason="memory is read from Linux's /proc")
def test_the_peak_of_each_process_of_a_command_is_seen():
    child = "x = bytearray(90_000_000); import time; time.sleep(0.6)"
    code = f"""
import subprocess, sys
x = bytearray(40_000_000)
del x
print("said", flush=True)
subprocess.run([sys.executable, "-c", {child!r}])
"""
    seen = watching.watch([sys.executable, "-c", code])
    assert seen.said == "said\n"
    assert seen.seconds > 0.6
    assert [len(seen.resident), len(seen.anonymous)] == [2, 2]
    assert 40 < seen.resident[0] < 80
    assert 90 < seen.resident[1] < 130
    assert 90 < seen.anonymous[1] <= seen.resident[1]


@pytest.mark.skipif(not watching.can_watch(), reason="memory is read from Linux's /proc")
def test_a_watched_command_that_fails_is_an_error_with_its_last_line():
    with pytest.raises(RunError, match=r"status 3\): out of order"):
        watching.watch([sys.executable, "-c", "print('out of order'); raise SystemExit(3)"])


def test_a_text_of_any_size_has_many_documents_and_is_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setattr(real_text, "LINES_FILE", 20_000)
    said = [f"{name}:\nWhat, {name}?" for name in ("ROMEO", "JULIET", "NURSE")]
    texts = []
    for name in ("a", "b"):
        real_text.write_documents(tmp_path / name, 100_000, said)
        pieces = list(Documents(find([str(tmp_path / name)])).pieces())
        texts.append("".join(piece.text for piece in pieces))
        assert len(texts[-1]) == 100_000
        assert 10 < sum(piece.is_last for piece in pieces) < 100
    assert texts[0] == texts[1]
    assert {path.suffix for path in (tmp_path / "a").iterdir()} == {".txt", ".jsonl"}
    assert len(list((tmp_path / "a").glob("*.jsonl"))) == 3


def test_the_rate_of_preparing_leaves_out_learning(capsys):
    split = {"bytes": 2_000_000, "tokens": 10}
    meta = {"train": split, "val": split, "documents": 1234}
    took = {"reading": 0.5, "learning": 7.0, "encoding": 1.5}
    prepare.conclude(meta, Path("corpus"), took, shell.Commands("train", "sample", "page"))
    said = capsys.readouterr().out
    assert "1,234 documents in 9 s (reading 0.5 s, learning 7.0 s, encoding 1.5 s)" in said
    found = preparing.Prepared(watching.Watched(9.0, said, [], []), preparing.stages(said), meta)
    assert found.stages == took
    assert found.rate == 2.0


@pytest.mark.parametrize(
    ("small", "large", "megabytes", "status"),
    [(300, 329, 1000, 0), (300, 331, 1000, 1), (300, 331, 50, 0), (495, 501, 50, 1)],
)
def test_memory_that_is_too_much_or_grows_is_a_failure(small, large, megabytes, status):
    assert preparing.judged(small, large, megabytes) == status


def test_the_share_that_waits_is_of_each_turn():
    row = {"step": [0.1, 0.2], "waited": [0.001, 0.1]}
    np.testing.assert_allclose(reading.shares(row), [0.01, 0.5])


def test_fine_tuning_is_compared_by_the_last_loss_of_each_run(tmp_path):
    ways = {finetune.FINE: 1.4, finetune.SCRATCH: 1.9, finetune.LONGER: 1.5}
    runs = [
        {"seed": seed, **{way: [(1, 5.0), (2, loss + 0.1 * seed)] for way, loss in ways.items()}}
        for seed in (1, 2)
    ]
    results = {
        "rates": {way: {"0.01": 2.0, "0.02": 3.0} for way in (finetune.FINE, finetune.SCRATCH)},
        "chosen": dict.fromkeys(ways, 0.01),
        "steps": {"before": 600, "fine": 200},
        "runs": runs,
    }
    text = finetune.table(results)
    assert "| seed | fine-tuned, 200 steps | from scratch, 200 steps |" in text
    assert "| 2 | 1.6000 | 2.1000 | 1.7000 | 0.5000 |" in text
    assert "lower by 0.5000 nats per byte on average" in text
    finetune.draw(tmp_path / "curves.png", results)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("large", "is_more"), [([705, 425], False), ([735, 455], True)])
def test_memory_is_compared_within_each_round(large, is_more, tmp_path, monkeypatch, capsys):
    """The first round compiles, which takes hundreds of MB: a run is compared within its round."""
    peaks = {"yes": iter([720, 440]), "no": iter([700, 430]), "large": iter(large)}

    def watch(command):
        (tmp_path / "run").mkdir()
        which = "large" if str(tmp_path / "large") in command else command[-1]
        return watching.Watched(1.0, "", [1000.0], [float(next(peaks[which]))])

    monkeypatch.setattr(reading, "watch", watch)
    assert reading.memory(tmp_path, {}, rounds=2, steps=1) == is_more
    assert "| small text | 580 | 440 to 720 | 1000 |" in capsys.readouterr().out
