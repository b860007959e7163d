"""Wrong input to sample.py: one line that names the input."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sample

ROOT = Path(sample.__file__).parent


BAD = [
    (["--num-samples", "0"], ["--num-samples (0)", "at least 1"]),
    (["--max-new-tokens", "0"], ["--max-new-tokens (0)", "at least 1"]),
    (["--temperature", "-1"], ["--temperature (-1.0)", "at least 0"]),
    (["--temperature", "nan"], ["--temperature (nan)"]),
    (["--temperature", "warm"], ["--temperature", "'warm'", "number"]),
    (["--top-k", "0"], ["--top-k (0)", "at least 1"]),
    (["--top-p", "0"], ["--top-p (0.0)"]),
    (["--top-p", "1.1"], ["--top-p (1.1)", "at most 1"]),
    (["--min-p", "2"], ["--min-p (2.0)", "at most 1"]),
    (["--repetition-penalty", "0"], ["--repetition-penalty (0.0)", "above 0"]),
    (["--batch-size", "0"], ["--batch-size (0)", "at least 1"]),
    (["--window", "sliding"], ["--window", "'sliding'", "exact, chunked"]),
    (["--stop", "foX"], ["--stop 'foX' can never appear", "'X' (U+0058) at position 2"]),
    (["--stop", ""], ["--stop is empty"]),
    (["--stop", "fox", "--stop", "foX"], ["--stop 'foX' can never appear"]),
    (["--dtype", "int8"], ["--dtype", "'int8'", "float32, bfloat16"]),
    (["--block-size", "17"], ["--block-size (17)", "from 1 to the model's (16)"]),
    (["--logprobs", "/no/such/file"], ["--logprobs /no/such/file", "no such folder"]),
    (["--stride", "2"], ["--stride is for --score"]),
    (["--score", "/no/such"], ["/no/such", "no such file"]),
    (["--score", __file__, "--prompt", "x"], ["--prompt is for samples"]),
    (["--score", __file__, "--stride", "17"], ["character"]),
    (["--seed", "-1"], ["--seed (-1)"]),
    (["--step", "newest"], ["--step", "'newest'"]),
    (["--step", "5"], ["step 5", "3, 6"]),
    (["--prompt", "foX"], ["'X' (U+0058) at position 2"]),
    (["--prompt", "fox", "--prompt-file", "x"], ["--prompt-file"]),
    (["--prompt-file", "/no/such"], ["/no/such", "no such file"]),
    (["--prompt-file", "--"], ["--: no such file"]),
    (["--prompt-file", "none"], ["none: no such file; give the path of a text file, `-` for"]),
    (["--prompt", "--"], ["'-' (U+002D) at position 0"]),
    (["--tempature", "1"], ["--tempature", "did you mean --temperature?"]),
]


@pytest.mark.parametrize(("flags", "named"), BAD, ids=[" ".join(f) for f, _ in BAD])
def test_bad_input_is_named(refused, finished_run, flags, named):
    error = refused(sample, "--out-dir", finished_run, *flags)
    for part in named:
        assert part in error


def test_a_prompt_file_that_is_not_utf_8(refused, finished_run, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"caf\xe9")
    assert "not UTF-8" in refused(sample, "--out-dir", finished_run, "--prompt-file", file)


def test_folders_without_a_run(refused, tmp_path, monkeypatch, run_copy):
    monkeypatch.chdir(tmp_path)
    assert "no such folder" in refused(sample, "--out-dir", tmp_path / "nope")
    (tmp_path / "empty").mkdir()
    assert "contains no run" in refused(sample, "--out-dir", tmp_path / "empty")
    assert "no run with a checkpoint under runs/" in refused(sample)
    shutil.rmtree(run_copy / "checkpoints")
    assert "no complete checkpoint" in refused(sample, "--out-dir", run_copy)


@pytest.mark.parametrize("script", ["sample.py", "train.py"])
def test_a_platform_that_is_not_there_is_named(finished_run, script):
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--out-dir", str(finished_run)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "abacus"},
    )
    assert done.returncode == 2
    assert "JAX_PLATFORMS (abacus)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
