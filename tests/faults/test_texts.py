"""A run trains on strange texts, or prints one clear line of error."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import sample
import train
from gptjax.store import runs
from gptjax.tokenizer import CharTokenizer

from conftest import TEXT
from processes import ENVIRONMENT, ROOT, train_flags

SHORT = ["--max-iters", 1, "--eval-interval", 1]

TEXTS = {
    "CRLF": "a line\r\nand a next\r\n" * 30,
    "lone CR": "a line\rand a next\r" * 30,
    "emoji and scripts": "🙂👩‍🚀 ёлка 漢字 עברית हिन्दी\n" * 30,
    "a byte order mark": "\ufeffa text\n" * 60,
    "one character": "a" * 400,
    "control characters": "\x01\x1b[31m\x7f\x85\u2028\u202e ab" * 40,
    "only newlines": "\n" * 400,
    "noncharacters": "\ufffe\uffff\U0010ffff\ue000 " * 100,
    "validation alone has some": "a🙂\r\n" * 150 + "é\x01\u2028" * 20,
}


# Each text has another vocabulary, and so needs another compilation.
QUICK = ("validation alone has some",)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TEXTS]
)
def test_strange_texts_train_and_are_sampled(tmp_path, name, capsys):
    """Other settings, such as block_size, stay the same: only the vocabulary differs."""
    file = tmp_path / "text.txt"
    file.write_bytes(TEXTS[name].encode())
    path = tmp_path / "run"
    assert train.main(train_flags(path, file, *SHORT)) == 0
    tokenizer = runs.read_run(path)[1]
    assert set(tokenizer.characters) == set(TEXTS[name])
    capsys.readouterr()
    prompt = TEXTS[name][-3:]
    assert sample.main(["--out-dir", str(path), "--prompt", prompt, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.startswith(prompt)


def test_a_nul_byte_is_told_with_its_place(tmp_path, refused):
    file = tmp_path / "text.txt"
    file.write_bytes(b"text " * 10**6 + b"\0")
    error = refused(train, "--data", file, "--out-dir", tmp_path / "run")
    assert "byte 5000000 is NUL" in error


def test_a_text_is_looked_up_in_parts_to_the_same_ids(monkeypatch):
    whole = CharTokenizer.from_text(TEXT)
    ids = whole.encode(TEXT)
    monkeypatch.setattr("gptjax.tokenizer.CHUNK", 7)
    assert CharTokenizer.from_text(TEXT).characters == whole.characters
    assert (whole.encode(TEXT) == ids).all()
    with pytest.raises(ValueError, match="at position 17 is not among"):
        whole.encode(TEXT[:17] + "é" + TEXT)


@pytest.mark.slow
def test_a_terminal_that_lacks_the_text_s_characters(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXTS["emoji and scripts"])
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *train_flags(tmp_path / "run", file, *SHORT)],
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\\u" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_line_of_100_megabytes(tmp_path):
    """Encoding this text used to take 2.1 GB of memory."""
    file = tmp_path / "text.txt"
    file.write_text("the quick brown fox " * (5 * 2**20))
    assert file.stat().st_size == 100 * 2**20
    began = time.monotonic()
    flags = train_flags(tmp_path / "run", file, *SHORT, "--eval-iters", 10)
    # Not getrusage: its maximum starts from the maximum of the parent process.
    script = (
        "import sys, train\nstatus = train.main(sys.argv[1:])\n"
        "print(open('/proc/self/status').read())\nsys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *flags], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 120
    peak_gib = int(done.stdout.split("VmHWM:")[1].split()[0]) / 2**20
    assert peak_gib < 1.6
