"""The cache of compiled programs: it is used, a broken one only costs time, and is repaired."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sample

SCRIPT = Path(sample.__file__)


def run(finished_run, cache):
    """sample.py as a user starts it, with its cache under `cache`."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out-dir", finished_run, "--max-new-tokens", "5"],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_entry_that_was_cut_short_is_made_anew(finished_run, tmp_path):
    """JAX by itself would warn at every start, and compile each time."""
    text = run(finished_run, tmp_path)
    entries = sorted((tmp_path / "gptjax").glob("*-cache"))
    sizes = [entry.stat().st_size for entry in entries]
    assert any("advance" in entry.name for entry in entries)
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:100])
    assert run(finished_run, tmp_path) == text
    again = sorted((tmp_path / "gptjax").glob("*-cache"))
    assert again == entries
    assert [entry.stat().st_size for entry in again] == pytest.approx(sizes, rel=0.05)


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_only_the_time(finished_run, tmp_path):
    (tmp_path / "gptjax").write_text("a file where the folder should be")
    run(finished_run, tmp_path)
