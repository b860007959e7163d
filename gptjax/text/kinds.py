"""Recognises files that are not UTF-8 text, and knows the commands that convert them to text.

Callers use this only for files that cannot be decoded (or begin with `%PDF-`), so a text that
begins with `BM` is still a text. This module looks only at the bytes that it gets: it opens and
unpacks nothing.
"""

from pathlib import Path
from typing import NamedTuple

from gptjax.text.shell import python, quoted

# Compressed files by their first bytes: the name, and a command that decompresses to stdout.
COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gzip -dc"),
    b"\x1f\x9d": ("compress", "gzip -dc"),
    b"BZh": ("bzip2", "bzip2 -dc"),
    b"\xfd7zXZ\0": ("xz", "xz -dc"),
    b"]\0\0": ("lzma", "xz -dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc"),
}
# Other encodings by their byte order mark; the longer marks first.
MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
UNMARKED = ("UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE")
# Files without text, by an offset and the bytes there.
NO_TEXT = {
    (0, b"\x89PNG"): "a PNG image",
    (0, b"\xff\xd8\xff"): "a JPEG image",
    (0, b"GIF8"): "a GIF image",
    (8, b"WEBP"): "a WebP image",
    (0, b"BM"): "a BMP image",
    (0, b"II*\0"): "a TIFF image",
    (0, b"MM\0*"): "a TIFF image",
    (8, b"WAVE"): "a sound",
    (0, b"ID3"): "a sound",
    (0, b"OggS"): "a sound",
    (0, b"fLaC"): "a sound",
    (4, b"ftyp"): "a video or a sound",
    (0, b"\x1aE\xdf\xa3"): "a video",
    (0, b"\x7fELF"): "a program",
    (0, b"MZ"): "a program",
    (0, b"\xcf\xfa\xed\xfe"): "a program",
}
# Files with text that only another program can extract.
ELSEWHERE = {
    (0, b"\x93NUMPY"): ("a numpy array", "give the text that it was made from"),
    (8, b'{"'): ("weights in safetensors", "give the text that they were trained on"),
    (0, b"\x89HDF"): ("HDF5", "write the text in it to a file first"),
    (0, b"PAR1"): ("a Parquet table", "write its column of text to a file first"),
    (0, b"ARROW1"): ("an Arrow table", "write its column of text to a file first"),
    (0, b"SQLite format 3"): ("an SQLite database", "write the text in it to a file first"),
    (0, b"\xd0\xcf\x11\xe0"): ("an old Office file", "save it there as plain text, UTF-8"),
    (0, b"7z\xbc\xaf"): ("a 7z archive", "unpack it (`7z x`) and give one of its texts"),
    (0, b"Rar!"): ("a RAR archive", "unpack it (`unrar x`) and give one of its texts"),
}
PICKLE = "a Python pickle, which can run code and is never opened here"
# Documents that are XML in a zip: bytes that identify them, and the files that have their text.
DOCUMENTS = {
    b"word/": ("a Word document", r"word/document\.xml"),
    b"ppt/": ("a PowerPoint file", r"ppt/slides/slide\d+\.xml"),
    b"application/vnd.oasis.opendocument.text": ("an OpenDocument text", r"content\.xml"),
    b"application/epub+zip": ("an EPUB book", r".*\.x?html?"),
}
UNZIP = (
    "import html,re,sys,zipfile as z; f=z.ZipFile(sys.argv[1]); "
    r'g=lambda n: re.sub(r"</(\w+:)?(p|h[1-6])>|<w:br/>","\n",f.read(n).decode()); '
    't="\\n".join(html.unescape(re.sub("<[^>]*>","",g(n))) for n in f.namelist() '
    "if re.fullmatch(sys.argv[2],n)); sys.stdout.buffer.write(t.encode())"
)
CELLS = (
    'import json,sys; c=json.load(open(sys.argv[1],encoding="utf-8"))["cells"]; '
    'sys.stdout.buffer.write("\\n\\n".join("".join(x["source"]) for x in c).encode())'
)


class Source(NamedTuple):
    """The user's input: its name for messages, and its path unless it is a stream."""

    name: str
    path: Path | None


def advice(source: Source, head: bytes) -> tuple[str, str] | None:
    """Says what a file that is not UTF-8 looks like, and what to do; None if it is unknown.

    Args:
        head: the file's first bytes, at least a few thousand, or all of them.
    """
    for magic, (name, command) in COMPRESSED.items():
        if head.startswith(magic):
            return f"{name}-compressed data", through(source, command)
    encoding = encoding_of(head)
    if encoding:
        return encoding, through(source, f"iconv -f {encoding} -t UTF-8")
    if head.startswith(b"PK\3\4"):
        return _zipped(source, head)
    if head.startswith(b"%PDF-"):
        return "a PDF", by(source, "pdftotext", " -", " (pdftotext is in poppler-utils)")
    if head[257:262] == b"ustar":
        return "a tar archive", unpacked(source, "tar -xf")
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return PICKLE, "write its text to a file with the program that made it"
    for (at, magic), found in ELSEWHERE.items():
        if head.startswith(magic, at):
            return found
    for (at, magic), what in NO_TEXT.items():
        if head.startswith(magic, at):
            return what, "it has no text to read; give a text file"
    if source.path is not None and source.path.name in ("train.bin", "val.bin"):
        return "nanoGPT's tokens", "give the text that they were made from (input.txt)"
    return None


def note(source: Source, text: str) -> str | None:
    """A warning about a text that is probably a document in a text format, else None."""
    if text.startswith("{\\rtf"):
        return (
            f"{source.name} is RTF: its markup is read as text; save it as plain text to avoid that"
        )
    begins = text[:4096].lstrip()
    if begins.startswith("{") and '"cells"' in begins and '"cell_type"' in text[:65536]:
        way = by(source, f"{python()} -c {quoted(CELLS)}")
        return f"{source.name} is a notebook, and is read as JSON; for its cells alone, {way}"
    return None


def encoding_of(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by the byte order mark or by whether the bytes decode to plausible text."""
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name
    part, best = head[: min(len(head), 4096) // 4 * 4 or len(head) // 2 * 2], (0, None)
    for name in UNMARKED:
        text = part.decode(name, "ignore")
        fits = len(text.encode(name)) >= len(part) - 2  # at most half a surrogate pair is missing
        if fits and all(x.isprintable() or x in "\t\n\r\f" for x in text):
            # These end words and lines in every script. None occurs in the wrong byte order.
            score = sum(text.count(x) for x in " \n,.\u3001\u3002\uff0c")
            best = max(best, (score, name), key=lambda pair: pair[0])
    return best[1]


def through(source: Source, command: str) -> str:
    """Advice to convert the source with a command that reads standard input or a file."""
    if source.path is None:
        return f"pipe it through `{command}` first"
    return by(source, command)


def by(source: Source, command: str, after: str = "", where: str = "") -> str:
    """Advice to convert the source with a command that takes a file and prints its text.

    Args:
        after: arguments after the file's name.
        where: where to get the program.
    """
    if source.path is None:
        return "save it to a file first, and give that file"
    old, new = quoted(source.path), quoted(unused(source.path))
    return f"run `{command} {old}{after} > {new}`{where} and give {new}"


def unpacked(source: Source, command: str, after: str = "") -> str:
    """Advice to unpack an archive with a command."""
    if source.path is None:
        return "save it to a file, unpack the file, and give one of its texts"
    return f"unpack it, `{command} {quoted(source.path)}{after}`, and give one of its texts"


def unused(path: Path) -> Path:
    """A path next to `path` that does not exist yet, for the converted text."""
    base = path.with_suffix("") if path.suffix else path
    ends = (".txt", ".utf-8.txt", *(f"-{number}.txt" for number in range(2, 1000)))
    names = [base.with_name(base.name + end) for end in ends]
    if base.suffix in (".txt", ".md"):  # my.txt.gz
        names.insert(0, base)
    return next((name for name in names if not name.exists()), names[0])


def _zipped(source: Source, head: bytes) -> tuple[str, str]:
    for sign, (what, pattern) in DOCUMENTS.items():
        if sign in head:
            return what, by(source, f"{python()} -c {quoted(UNZIP)}", f" {quoted(pattern)}")
    if b"data.pkl" in head:
        return f"a PyTorch file, {PICKLE}", "give the text that it was trained on"
    if b".npy" in head:
        return ELSEWHERE[0, b"\x93NUMPY"]
    folder = Path(f"{source.path}.unpacked")
    return "a zip archive", unpacked(source, f"{python()} -m zipfile -e", f" {quoted(folder)}")
