"""Files that are not UTF-8 text: the error recognizes them, and its command works."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gptjax.errors import InputError
from gptjax.text import kinds, reading
from gptjax.text.corpora import load_text

TEXT = "First Citizen:\nBefore we proceed, hear me.\nÜber 漢字, и так далее.\n" * 9
BYTES = (TEXT * 9).encode()
PATH = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def refusal(path: object, data_dir: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_text(str(path), data_dir)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def follow(error: str) -> str:
    """Runs the command between the first two backticks; returns the path of the text it wrote."""
    done = subprocess.run(
        ["bash", "-c", error.split("`")[1]],
        capture_output=True,
        text=True,
        env={**os.environ, **PATH, "LC_ALL": "C"},
    )
    assert done.stderr == ""
    [given] = error.split(" and give ")[1:] or [""]
    return given.split(" (")[0].strip("'")


def packed(kind: str) -> bytes:
    """A file with TEXT in it."""
    data = TEXT.encode()
    if kind in ("word", "odt", "epub", "zip"):
        lines = "".join(f"<w:p><w:t>{line}</w:t></w:p>" for line in TEXT.splitlines())
        prefix = {"odt": "text", "epub": "x"}.get(kind, "w")
        lines = lines.replace("w:", f"{prefix}:")
        files = {
            "word": {"[Content_Types].xml": "<x/>", "word/document.xml": f"<w:d>{lines}</w:d>"},
            "odt": {
                "mimetype": "application/vnd.oasis.opendocument.text",
                "content.xml": f"<o>{lines}</o>",
            },
            "epub": {"mimetype": "application/epub+zip", "OEBPS/one.xhtml": f"<b>{lines}</b>"},
            "zip": {"inner.txt": TEXT},
        }[kind]
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                stored = zipfile.ZIP_STORED if name == "mimetype" else None
                archive.writestr(name, content, stored)
        return file.getvalue()
    if kind == "tar":
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            entry = tarfile.TarInfo("inner.txt")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        return file.getvalue()
    if kind in ("zstd", "lz4"):
        if not shutil.which(kind):
            pytest.skip(f"needs {kind}")
        return subprocess.run([kind, "-c"], input=data, capture_output=True, check=True).stdout
    python = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    if kind in python:
        return python[kind](data)
    if kind == "lzma":
        return lzma.compress(data, format=lzma.FORMAT_ALONE)
    return TEXT.encode(kind)


ENCODINGS = ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
COMMANDS = {
    **{name: f"{name}-compressed" for name in ("gzip", "bzip2", "xz", "lzma", "zstd", "lz4")},
    **{name: name.upper()[:6] for name in ENCODINGS},
    **{"word": "a Word document", "odt": "an OpenDocument text", "epub": "an EPUB book"},
}


@pytest.mark.parametrize("kind", list(COMMANDS))
def test_a_text_in_another_form_is_named_and_its_command_works(kind, tmp_path):
    """The folder's path has characters that a shell would split and expand."""
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    path = folder / "my text.dat"
    path.write_bytes(packed(kind))
    error = refusal(path, tmp_path)
    assert f"looks like {COMMANDS[kind]}" in error
    assert "not UTF-8 text (" in error
    follow(error)
    [made] = [p for p in folder.iterdir() if p != path]
    assert made.name == "my text.txt"
    assert reading.read_text(str(made)).split("\n")[:3] == TEXT.split("\n")[:3] or kind == "epub"
    assert "hear me.\nÜber 漢字" in reading.read_text(str(made))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_unpacked_by_its_command(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my archive").write_bytes(packed(kind))
    follow(refusal("my archive", tmp_path))
    [made] = tmp_path.rglob("inner.txt")
    assert made.read_text() == TEXT


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
        (b"GIF89a\1\0\1\0", "a GIF image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a sound"),
        (b"\0\0\0\x20ftypisom", "a video or a sound"),
        (b"BM\0\0\0\0", "a BMP image"),
        (b"\x7fELF\2\1\1\0", "a program"),
        (b"PAR1\0\0", "a Parquet table"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "an old Office file"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF"),
        (b"%PDF-1.4\nall of it ASCII\n", "a PDF"),
        (pickle.dumps({"a": 1}), "a Python pickle"),
        (
            b"PK\3\4" + b"\0" * 26 + b"archive/data.pkl" + pickle.dumps([]),
            "a PyTorch file, a Python pickle",
        ),
        (b"PK\3\4" + b"\0" * 26 + b"x.npy", "a numpy array"),
        (b'\x10\0\0\0\0\0\0\0{"wte.weight":', "weights in safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_no_text_is_named(content, what, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(content)
    error = refusal(path, tmp_path)
    assert f"{path} looks like {what}" in error


def test_numpy_and_nanogpts_tokens_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(9))
    assert "looks like a numpy array" in refusal(tmp_path / "a.npy", tmp_path)
    np.arange(65, dtype=np.uint16).tofile(tmp_path / "train.bin")
    error = refusal(tmp_path / "train.bin", tmp_path)
    assert "nanoGPT's tokens" in error
    assert "input.txt" in error
    np.arange(3, 65, dtype=np.uint16).tofile(tmp_path / "other.bin")
    assert "is binary, not text: byte 1 is NUL" in refusal(tmp_path / "other.bin", tmp_path)


@pytest.mark.parametrize(
    "text", ["BM is a brand", "MZ", "ID3 tags", "GIF8", "PAR1", "Rar!", "PK", "]"]
)
def test_a_text_that_begins_as_another_kind_does_is_a_text(text, tmp_path):
    (tmp_path / "text").write_text(text)
    assert load_text(str(tmp_path / "text"), tmp_path).text == text


def test_bytes_of_nothing_known_are_not_guessed_at(tmp_path):
    rng = np.random.default_rng(0)
    for content in (b"\0" * 64, rng.bytes(4096), rng.bytes(6), b"\0\1\2\3" * 9):
        assert kinds.encoding_of(content) is None
    for name in ("UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"):
        assert kinds.encoding_of(("中文的文本。\n没有字节顺序标记。" * 9).encode(name)) == name


@pytest.mark.parametrize(
    ("encoding", "text", "said"),
    [
        ("latin-1", "un caf\xe9 cr\xe8me\n" * 9, "-f WINDOWS-1252"),
        ("cp1252", "\u201cquoted\u201d \u2013 5 \u20ac\n" * 9, "-f WINDOWS-1252"),
        ("latin-1", "caf\xe9 \x81 next line\n" * 9, "-f ISO-8859-1"),
    ],
)
def test_western_text_is_converted_by_the_command(encoding, text, said, tmp_path):
    """With locale C, plain `iconv -t UTF-8` fails or converts from the wrong encoding."""
    path = tmp_path / "my.txt"
    path.write_bytes(text.encode(encoding))
    error = refusal(path, tmp_path)
    assert "is not UTF-8: byte " in error
    assert said in error
    follow(error)
    assert (tmp_path / "my.utf-8.txt").read_bytes().decode() == text


@pytest.mark.parametrize(("encoding", "name"), [("gb18030", "GB18030"), ("koi8-r", "KOI8-R")])
def test_text_of_other_scripts_is_told_how_it_may_be_encoded(encoding, name, tmp_path):
    path = tmp_path / "my.txt"
    path.write_bytes(("漢字" if encoding == "gb18030" else "и так далее").encode(encoding) * 9)
    error = refusal(path, tmp_path)
    assert "WINDOWS-1252" not in error
    assert f"{name} " in error
    assert f"`iconv -f ENCODING -t UTF-8 {path}" in error


@pytest.mark.parametrize(
    ("content", "said", "kept"),
    [
        (BYTES + b"\xff, and the end", "iconv -c -f UTF-8 -t UTF-8", BYTES + b", and the end"),
        # `head -c 1000000` of a larger text.
        (BYTES[:-3], "the file ends in the middle of a character", BYTES[:-4]),
        (BYTES + b"\0end\n", "is NUL; without its NUL bytes it may be a text", BYTES + b"end\n"),
    ],
    ids=["a broken byte", "half a character at the end", "a NUL here and there"],
)
def test_what_is_broken_is_left_out_by_the_command(tmp_path, content, said, kept):
    path = tmp_path / "my.txt"
    path.write_bytes(content)
    error = refusal(path, tmp_path)
    assert said in error
    follow(error)
    assert reading.read_text(str(tmp_path / "my.utf-8.txt")) == kept.decode()


def test_a_command_overwrites_nothing(tmp_path):
    for name in ("my.txt", "my.utf-8.txt", "my-2.txt"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "my.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert "my-3.txt" in follow(refusal(tmp_path / "my.gz", tmp_path))
    assert (tmp_path / "my.txt").read_text() == "mine"
    (tmp_path / "other.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert follow(refusal(tmp_path / "other.txt.gz", tmp_path)).endswith("/other.txt")


def test_a_pipe_is_told_a_filter(tmp_path, monkeypatch):
    """A path that vanishes after the shell's command would be useless in advice."""
    for kind, said in (
        ("gzip", "standard input looks like gzip-compressed data"),
        ("utf-16", "pipe it through `iconv -f UTF-16 -t UTF-8` first"),
        ("word", "save it to a file first"),
        ("zip", "save it to a file, unpack the file"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed(kind))))
        assert said in refusal("-", tmp_path)


def test_a_notebook_is_read_as_it_is_with_a_word(tmp_path):
    cells = [{"cell_type": "code", "source": ["import jax\n", "x = 1"], "outputs": []}] * 2
    path = tmp_path / "my notebook.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}))
    told = []
    assert load_text(str(path), tmp_path, told.append).text == path.read_text()
    [line] = told
    assert "is a notebook, and is read as JSON" in line
    follow(line)
    assert (tmp_path / "my notebook.txt").read_text() == "import jax\nx = 1\n\nimport jax\nx = 1"
    (tmp_path / "a.json").write_text('{"cells": 5}')
    assert load_text(str(tmp_path / "a.json"), tmp_path, told.append)
    assert len(told) == 1
    (tmp_path / "a.rtf").write_text("{\\rtf1 text}")
    load_text(str(tmp_path / "a.rtf"), tmp_path, told.append)
    assert "is RTF" in told[1]


def test_a_path_in_an_error_is_shown_as_it_is_written(tmp_path):
    (tmp_path / "漢字").mkdir(mode=0)
    assert "漢字 is a directory" in refusal(tmp_path / "漢字", tmp_path)
    assert "'漢\\x00' cannot be read" in refusal("漢\0", tmp_path)
