"""What is wrong with texts that are to be prepared: one line of the real command, and no files."""

import gzip
import json
import os

import pytest

from gptjax.text import preparing

from preparations import TEXT, documents, run, said

LATIN = "Ein Märchen, das früher geschrieben wurde.\n".encode("latin-1") * 3
PNG = b"\x89PNG\r\n\x1a\n\0\0\0"
BAD = {  # what else is in the folder, and what is said
    "one file in another encoding": (
        {"b.txt": LATIN},
        f"b.txt is not UTF-8 text: byte {LATIN.index(0xE4)} (0xe4); convert it",
    ),
    "a file that changes its encoding": (
        {"b.txt": TEXT.encode() + LATIN},
        f"b.txt is not UTF-8 text: byte {len(TEXT.encode()) + LATIN.index(0xE4)} (0xe4)",
    ),
    "UTF-16": ({"b.txt": TEXT.encode("utf-16")}, "b.txt looks like UTF-16"),
    "a NUL": ({"b.txt": TEXT.encode() * 20 + b"\0"}, "byte"),
    "a character cut in half": ({"b.txt": TEXT.encode()[:-2]}, "b.txt is not UTF-8 text: byte"),
    "a truncated archive": ({"b.txt.gz": gzip.compress(LATIN)[:-9]}, "b.txt.gz is truncated or"),
    "a picture called text": ({"b.txt.gz": PNG}, "b.txt.gz is truncated or damaged"),
    "a table without the field": ({"b.jsonl": b'{"a": "b"}\n'}, "b.jsonl, line 1 has no text in"),
    "a line that is no JSON": ({"b.jsonl": b'{"text": "b"}\n{"t'}, "b.jsonl, line 2 is not JSON"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_among_good_ones_is_named_with_its_place(what, tmp_path, capsys):
    source, (files, message) = documents(tmp_path / "a", 3), BAD[what]
    for name, content in files.items():
        (source / name).write_bytes(content)
    error = said(capsys, 2, source, "--out", tmp_path / "out")
    assert message in error
    assert str(source / next(iter(files))) in error
    assert not (tmp_path / "out").exists()


def test_folders_without_a_text(tmp_path, capsys):
    out = ["--out", tmp_path / "out"]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    assert "found no text file in" in said(capsys, 2, pictures, *out)
    for name in ("a.png", "b.jpg", "c.bin"):
        (pictures / name).write_bytes(PNG)
    assert run(pictures, *out) == 2
    captured = capsys.readouterr()
    assert "skipped, because not text:" in captured.out
    assert "found no text file in" in captured.err
    assert "looks like a PNG image, not UTF-8" in said(capsys, 2, pictures / "a.png", *out)
    (pictures / "empty.txt").write_text("")
    assert "the files contain no text" in said(capsys, 2, pictures, *out)
    (pictures / "empty.txt").write_text("a")
    assert "of its 1 characters" in said(capsys, 2, pictures, *out)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "is not a regular file: save it to one first" in said(capsys, 2, pipe, *out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [3, 120])
@pytest.mark.parametrize("change", ["longer", "another letter"])
def test_files_that_change_while_they_are_read(change, count, tmp_path, capsys, monkeypatch):
    """They are read twice: to divide them, and to encode them. Their length may stay the same."""
    source, out = documents(tmp_path / "a", count), tmp_path / "out"
    one = next(source.iterdir())

    def divided(*_):
        text = one.read_text()
        one.write_text(f"{text}more" if change == "longer" else "D" + text[1:])

    flags = [source, "--out", out, "--tokenizer", "byte"]
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "check_divided", divided)
        assert "changed while they were read: give the command again" in said(capsys, 2, *flags)
    assert not list(out.glob("*.bin"))
    assert run(*flags, "--overwrite") == 0


@pytest.mark.parametrize(
    "changes", [{"pieces": "1"}, {"train": {"tokens": None}}, {"val": [1]}, {"tokenizer": 1}]
)
def test_a_damaged_state_is_named(changes, tmp_path, capsys, monkeypatch):
    source = documents(tmp_path / "a", 3)
    flags = [source, "--out", tmp_path / "out"]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_write", stop)
        assert run(*flags) == 130
    state = tmp_path / "out" / "preparing.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | changes))
    assert "preparing.json is damaged: --overwrite starts again" in said(capsys, 2, *flags)
    assert run(*flags, "--overwrite") == 0
