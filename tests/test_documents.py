"""Files, folders and globs as documents: the same text, however it is stored, or one error line."""

import gzip
import json

import pytest

from gptjax.errors import InputError
from gptjax.text import documents
from gptjax.text.documents import Documents, find

from strange import CHINESE, EMOJI, HINDI

TEXT = (CHINESE + HINDI + EMOJI) * 40


def read(*paths, **settings):
    """The text of each document."""
    texts = [""]
    for text, is_last, _ in Documents(find([str(path) for path in paths]), **settings).pieces():
        texts[-1] += text
        texts += [""] if is_last else []
    assert texts.pop() == ""
    return texts


def as_lines(*texts, field="text"):
    return "".join(json.dumps({field: text}) + "\n" for text in texts)


@pytest.fixture
def small(monkeypatch):
    """Chunks and pieces so small that a short text has many."""
    monkeypatch.setattr(documents, "CHUNK", 50)
    monkeypatch.setattr(documents, "PIECE", 4)


def test_a_text_is_the_same_however_it_is_stored(tmp_path, small, monkeypatch):
    content = TEXT.encode()
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(content[:999]) + gzip.compress(content[999:]))
    (tmp_path / "c.jsonl").write_text(as_lines("one", TEXT, "", field="body") + "\n")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(as_lines(TEXT, field="body").encode()))
    (tmp_path / "empty.txt").write_text("")
    assert read(tmp_path, field="body") == [TEXT, TEXT, "one", TEXT, TEXT]
    source = Documents(find([str(tmp_path / "a.txt")]))
    pieces = [piece.text for piece in source.pieces()]
    assert source.read == source.bytes == len(content)
    monkeypatch.setattr(documents, "CHUNK", 7)
    assert [piece.text for piece in source.pieces()] == pieces, "where a piece ends is the text's"
    assert len(pieces) > 100


def test_what_is_compressed_with_zstd(tmp_path, small):
    zstandard = pytest.importorskip("zstandard", reason="needs the extra `data`")
    frames = [zstandard.ZstdCompressor().compress(x.encode()) for x in (TEXT[:700], TEXT[700:])]
    path = tmp_path / "a.txt.zst"
    path.write_bytes(b"".join(frames))
    assert read(path) == [TEXT]
    for damaged in (frames[0][:-5], frames[0] + b"else", b"else"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.txt\.zst is truncated or damaged"):
            read(path)


def test_a_folder_gives_its_texts_by_name_and_says_what_it_leaves_out(tmp_path):
    for name in ("b.py", "a.txt", "deep/er/c.md", ".hidden", ".git/x", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("p.png", "q.png", "r.png", "s.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    told = []
    found = find([str(tmp_path)], told.append)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.txt", "b.py", "deep/er/c.md"]
    assert len(told) == 1
    assert "p.png" in told[0]
    assert "and 1 more" in told[0]
    assert find([f"{tmp_path}/**/*.md", str(tmp_path / "a.txt"), str(tmp_path / "a.txt")]) == [
        tmp_path / "deep/er/c.md",
        tmp_path / "a.txt",
    ]


def test_a_folder_of_pictures_an_empty_one_and_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="found no text file in"):
        find([str(tmp_path)])
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(InputError, match="found no text file in"):
        find([str(tmp_path)])
    for path, message in (("gone", "no such file or folder"), ("*.txt", "no file matches")):
        with pytest.raises(InputError, match=message):
            find([str(tmp_path / path)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "aé".encode() * 30 + b"\xff", r"a.txt is not UTF-8 text: byte 90 \(0xff\)"),
        ("a.txt", "aé".encode() * 30 + b"\xc3", r"byte 90 \(0xc3\)"),
        ("a.txt", b"ab" * 30 + b"\0", "byte 60 is NUL"),
        ("a.txt", "ab".encode("utf-16"), r"looks like UTF-16, .*iconv -f UTF-16"),
        ("a.txt.gz", gzip.compress(b"ab" * 99, mtime=0)[:-12], "a.txt.gz is truncated or damaged"),
        ("a.txt.gz", b"ab", "a.txt.gz is truncated or damaged"),
        ("a.jsonl", b'{"text": "a"}\n{"tex', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"body": "a"}', r"line 1 has no text in 'text' \('body'\): give --field"),
        ("a.jsonl", b"[1]", "no object"),
        ("a.jsonl", b'{"text": "\\ud83d"}', r"line 1: character .* half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_named_with_its_place(name, content, message, tmp_path, small):
    (tmp_path / "0.txt").write_text("a good one")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "0.txt", tmp_path / name)


def test_a_line_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE", 100)
    (tmp_path / "a.jsonl").write_text(as_lines("x" * 100))
    with pytest.raises(InputError, match="line 1 is longer than 100 bytes"):
        read(tmp_path)
