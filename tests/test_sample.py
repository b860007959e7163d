import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sample

from conftest import damage_newest

ROOT = Path(sample.__file__).parent
LINE = "-" * 15


def text_of(capsys, *argv):
    """Standard output of a successful call."""
    capsys.readouterr()
    assert sample.main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


def test_output_is_the_samples_each_with_its_prompt_and_a_line(finished_run, capsys):
    out = text_of(
        capsys,
        "--out-dir",
        finished_run,
        "--prompt",
        "fox",
        "--num-samples",
        3,
        "--max-new-tokens",
        10,
    )
    samples = out.split(f"\n{LINE}\n")
    assert samples.pop() == ""
    assert len(samples) == 3
    assert all(s.startswith("fox") and len(s) == 13 for s in samples)
    assert len(set(samples)) > 1


def test_everything_else_goes_to_stderr(finished_run, capsys):
    sample.main(["--out-dir", str(finished_run), "--max-new-tokens", "3"])
    captured = capsys.readouterr()
    assert "cpu: 1 x" in captured.err
    assert "cpu" not in captured.out


def test_an_empty_prompt_starts_from_id_0_which_is_not_printed(finished_run, capsys):
    out = text_of(capsys, "--out-dir", finished_run, "--max-new-tokens", 10, "--prompt", "")
    assert len(out) == 10 + len(f"\n{LINE}\n")
    newline = text_of(capsys, "--out-dir", finished_run, "--max-new-tokens", 10, "--prompt", "\n")
    assert newline == "\n" + out


def test_the_seed_decides(finished_run, capsys):
    def draw(seed):
        return text_of(capsys, "--out-dir", finished_run, "--max-new-tokens", 20, "--seed", seed)

    assert draw(1) == draw(1) != draw(2)


def test_greedy_needs_no_seed(finished_run, capsys):
    texts = {
        text_of(capsys, "--out-dir", finished_run, "--max-new-tokens", 20, "--seed", seed, *flags)
        for seed in (1, 2)
        for flags in (["--temperature", 0], ["--top-k", 1])
    }
    assert len(texts) == 1


def test_a_prompt_from_a_file(finished_run, capsys, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("lazy dog.\n")
    out = text_of(capsys, "--out-dir", finished_run, "--prompt-file", file, "--max-new-tokens", 5)
    assert out.startswith("lazy dog.\n")


def test_a_prompt_file_is_text_as_the_corpus_is(finished_run, capsys, tmp_path):
    """Notepad writes a byte order mark and CRLF, which the model's text does not have."""
    flags = ["--out-dir", finished_run, "--max-new-tokens", 5]
    plain = text_of(capsys, *flags, "--prompt", "lazy dog.\nthe")
    file = tmp_path / "prompt.txt"
    file.write_bytes("\ufefflazy dog.\r\nthe".encode())
    assert text_of(capsys, *flags, "--prompt-file", file) == plain
    assert text_of(capsys, *flags, "--prompt", file.read_bytes().decode()) == plain
    scores = set()
    for content in ("lazy dog.\nthe quick", "\ufefflazy dog.\r\nthe quick"):
        file.write_bytes(content.encode())
        scores.add(text_of(capsys, "--out-dir", finished_run, "--score", file))
    assert len(scores) == 1


@pytest.mark.parametrize("flag", ["--prompt-file", "--score"])
def test_a_dash_is_standard_input(finished_run, capsys, tmp_path, monkeypatch, flag, refused):
    flags = ["--out-dir", finished_run]
    flags += ["--max-new-tokens", 5] if flag == "--prompt-file" else []
    file = tmp_path / "text.txt"
    file.write_text("the quick brown fox")
    expected = text_of(capsys, *flags, flag, file)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert text_of(capsys, *flags, flag, "-") == expected
    assert "standard input is empty" in refused(sample, *flags, flag, "-")


def test_a_prompt_may_be_longer_than_the_block_and_may_start_with_a_dash(run_copy, capsys):
    prompt = "the quick brown fox jumps over the lazy dog." * 3
    out = text_of(capsys, "--out-dir", run_copy, "--prompt", prompt, "--max-new-tokens", 5)
    assert out.startswith(prompt)
    with pytest.raises(AssertionError):
        text_of(capsys, "--out-dir", run_copy, "--prompt", "--fox")  # no dash in this vocabulary


def test_the_newest_run_with_a_checkpoint_is_the_default(
    finished_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run, tmp_path / "runs" / "one")
    (tmp_path / "runs" / "two").mkdir()
    shutil.copy(finished_run / "config.json", tmp_path / "runs" / "two")
    sample.main(["--max-new-tokens", "3"])
    assert "runs/one, step" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "found"), [("latest", 6), ("3", 3)])
def test_steps(finished_run, capsys, step, found):
    sample.main(["--out-dir", str(finished_run), "--step", step, "--max-new-tokens", "3"])
    assert f"step {found}," in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told_and_another_used(run_copy, capsys):
    damage_newest(run_copy, "flipped")
    text = ["--out-dir", str(run_copy), "--step", "latest", "--max-new-tokens", "3"]
    assert sample.main(text) == 0
    err = capsys.readouterr().err
    assert "damaged" in err
    assert "step 3," in err


def test_several_prompts_each_as_if_alone(finished_run, capsys):
    """Prompts of different lengths, in one batch and in batches of two and one."""
    flags = ["--out-dir", finished_run, "--max-new-tokens", 30]
    prompts = ["the ", "quick brown fox", "\n"]
    alone = [text_of(capsys, *flags, "--prompt", p) for p in prompts]
    given = [part for p in prompts for part in ("--prompt", p)]
    assert text_of(capsys, *flags, *given) == "".join(alone)
    assert text_of(capsys, *flags, *given, "--batch-size", 2) == "".join(alone)


def test_the_text_on_a_terminal_is_the_text_in_a_pipe(finished_run, capsys, monkeypatch):
    flags = ["--out-dir", finished_run, "--max-new-tokens", 40, "--num-samples", 2]
    piped = text_of(capsys, *flags)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert text_of(capsys, *flags) == piped


def test_a_sample_ends_before_the_stop_text(finished_run, capsys):
    flags = ["--out-dir", finished_run, "--max-new-tokens", 60, "--num-samples", 3]
    free = text_of(capsys, *flags, "--prompt", "fox").split(f"\n{LINE}\n")[:-1]
    stopped = text_of(capsys, *flags, "--prompt", "fox", "--stop", "o").split(f"\n{LINE}\n")[:-1]
    # The "o" in the prompt does not count.
    assert stopped == ["fox" + text[3:].split("o")[0] for text in free]
    both = text_of(capsys, *flags, "--prompt", "fox", "--stop", "o", "--stop", " ")
    first = [re.split("[o ]", text[3:])[0] for text in free]
    assert both.split(f"\n{LINE}\n")[:-1] == ["fox" + text for text in first]


def test_what_happens_past_the_block_is_said_once(finished_run, capsys):
    for flags, said in (
        (["--max-new-tokens", "16"], None),  # the last is drawn from the 16 before it
        (["--max-new-tokens", "17"], "the last 8 to 16; with --window exact"),
        (["--max-new-tokens", "60"], "the last 8 to 16; with --window exact"),
        (["--max-new-tokens", "60", "--window", "exact"], "the last 16, which are encoded again"),
    ):
        sample.main(["--out-dir", str(finished_run), *flags])
        notes = [x for x in capsys.readouterr().err.splitlines() if x.startswith("past 16 tokens")]
        assert len(notes) == (0 if said is None else 1)
        assert said is None or said in notes[0]


def test_log_probabilities_are_in_the_order_of_samples_and_positions(
    finished_run, capsys, tmp_path
):
    """A call draws at most 256 tokens per row, so the rows' tokens arrive interleaved."""
    file = tmp_path / "logprobs.jsonl"
    flags = ["--out-dir", finished_run, "--max-new-tokens", 260, "--num-samples", 2]
    text_of(capsys, *flags, "--logprobs", file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = [(line["prompt"], line["sample"], line["position"]) for line in lines]
    assert found == [(0, sample, position) for sample in range(2) for position in range(260)]


def test_log_probabilities_are_written_as_json_lines(finished_run, capsys, tmp_path):
    file = tmp_path / "logprobs.jsonl"
    flags = ["--out-dir", finished_run, "--max-new-tokens", 9, "--num-samples", 2]
    out = text_of(capsys, *flags, "--prompt", "fox", "--logprobs", file)
    assert out == text_of(capsys, *flags, "--prompt", "fox")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 18
    for number, text in enumerate(out.split(f"\n{LINE}\n")[:2]):
        mine = [line for line in lines if line["sample"] == number]
        assert "".join(line["token"] for line in mine) == text[3:]
        assert [line["position"] for line in mine] == list(range(9))
    for line in lines:
        best = [entry["logprob"] for entry in line["alternatives"]]
        assert len(best) == 5
        assert best == sorted(best, reverse=True)
        assert line["logprob"] <= best[0] <= 0


def test_a_score_is_the_loss_of_the_text(finished_run, capsys, text_file):
    out = text_of(capsys, "--out-dir", finished_run, "--score", text_file, "--stride", 16)
    found = dict(line.split(": ") for line in out.splitlines())
    nats = float(found["loss"].split()[0])
    assert abs(float(found["bits per character"]) - nats / math.log(2)) < 1e-3
    assert abs(float(found["perplexity"].split()[0]) - math.exp(nats)) < 2e-3 * math.exp(nats)
    assert 0 < nats < 4
    closer = text_of(capsys, "--out-dir", finished_run, "--score", text_file, "--stride", 1)
    assert closer != out


def test_speed_flags_keep_the_text_a_text(finished_run, capsys):
    for flags in (["--dtype", "bfloat16"], ["--block-size", "5"]):
        out = text_of(capsys, "--out-dir", finished_run, "--max-new-tokens", 30, *flags)
        assert len(out) == 30 + len(f"\n{LINE}\n")


NOT_THE_SAMPLERS = ["train", "loop", "report", "health", "verify"]


def test_a_copied_run_needs_neither_the_corpus_nor_the_training_scripts(finished_run, tmp_path):
    """Runs sample.py in a folder that has only the sampler's part of the package."""
    there = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "gptjax", there / "gptjax")
    shutil.copy(ROOT / "sample.py", there)
    for name in NOT_THE_SAMPLERS:
        (there / "gptjax" / "app" / f"{name}.py").unlink()
    shutil.rmtree(there / "gptjax" / "lecture")
    shutil.copytree(finished_run, there / "run")
    done = subprocess.run(
        [
            sys.executable,
            "sample.py",
            "--out-dir",
            "run",
            "--prompt",
            "fox",
            "--max-new-tokens",
            "9",
        ],
        cwd=there,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fox")
    assert done.stdout.endswith(f"\n{LINE}\n")
    assert "Warning" not in done.stderr


def test_a_reader_that_leaves_is_no_error(finished_run):
    script = f"{sys.executable} {ROOT / 'sample.py'} --out-dir {finished_run} --num-samples 40"
    command = ["bash", "-c", f"{script} | head -c 5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert len(done.stdout) == 5
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
