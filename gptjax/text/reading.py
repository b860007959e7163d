"""Reads text files: checks their bytes while reading, and decodes them."""

import contextlib
import stat
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO

from gptjax.errors import InputError
from gptjax.text.kinds import Source, advice, by, note, through
from gptjax.text.outputs import descriptor_of
from gptjax.text.shell import python

# An index into a text is an int32 on the device.
MAX_BYTES = 2**31 - 1
CHUNK = 2**22
STANDARD_INPUT = "-"
ENCODINGS = (
    "GB18030 or BIG5 for Chinese, SHIFT_JIS or EUC-JP for Japanese, EUC-KR for Korean, "
    "WINDOWS-1251 or KOI8-R for Russian"
)


def read_text(given: str) -> str:
    """Reads a UTF-8 file's text, with the newlines of the file.

    Args:
        given: the file's path, or `-` for standard input.

    Raises:
        InputError: as in `read_bytes` and `decode`.
    """
    return decode(given, read_bytes(given))


def like_the_corpus(text: str, characters: Container[str]) -> str:
    """Removes what editors add to a text, if the model's own text does not have it.

    Args:
        characters: the model's vocabulary. If it lacks the byte order mark or the carriage return,
            they are removed from the text.
    """
    if text.startswith("\ufeff") and "\ufeff" not in characters:
        text = text[1:]
    return text if "\r" in characters else text.replace("\r\n", "\n")


def is_stream(given: str) -> bool:
    """Whether a text can be read only once: standard input, or a shell's `<(...)`."""
    if given == STANDARD_INPUT or descriptor_of(Path(given)) is not None:
        return True
    try:
        mode = Path(given).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def read_bytes(given: str, or_else: str = "") -> bytes:
    """Reads a text file's bytes.

    Args:
        given: the file's path, or `-` for standard input.
        or_else: other options, for the message about a missing file.

    Raises:
        InputError: the file is missing, a directory, unreadable, empty, binary or too large.
    """
    content = bytearray()
    name = _name(given)
    try:
        with _open(given) as file:
            while chunk := file.read(CHUNK):
                content += chunk
                # Check each chunk right away, because some devices never end.
                nul = chunk.find(b"\0")
                if nul >= 0:
                    place = len(content) - len(chunk) + nul
                    raise _no_text(given, content, place, f"byte {place} is NUL")
                if len(content) > MAX_BYTES:
                    raise InputError(f"{name} is larger than {MAX_BYTES} bytes: give a part of it")
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"{name}: no such file; give the path of a text file, `-` for standard input" + or_else
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{name!r} cannot be read: {error}") from error
    if not content:
        raise InputError(f"{name} is empty: give a file with text in it")
    return bytes(content)


def decode(given: str, content: bytes) -> str:
    """Decodes a file's bytes.

    Raises:
        InputError: the file is a PDF or not UTF-8; the message says how to convert it.
    """
    if content.startswith(b"%PDF-"):
        raise _no_text(given, content, 0, "it begins with %PDF-")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start
        problem = f"byte {at} (0x{content[at]:02x})"
        raise _no_text(given, content, at, problem) from error


def notes(given: str, text: str) -> list[str]:
    """Warnings about a readable text that is probably not what the user meant to give."""
    found = note(_source(given), text)
    return [found] if found else []


@contextlib.contextmanager
def _open(given: str) -> Iterator[IO[bytes]]:
    if given == STANDARD_INPUT:
        if sys.stdin is None:
            raise InputError("standard input is closed: give the path of a text file")
        yield sys.stdin.buffer
        return
    path = Path(given)
    if path.is_dir():
        raise InputError(
            f"{path} is a directory: give the path of one text file, a pattern for several, as in "
            f"'{path}/**/*.txt', or have it prepared (`{python()} -m gptjax prepare --help`)"
        )
    with path.open("rb") as file:
        yield file


def _name(given: str) -> str:
    return "standard input" if given == STANDARD_INPUT else str(Path(given))


def _source(given: str) -> Source:
    return Source(_name(given), None if is_stream(given) else Path(given))


def _no_text(given: str, content: bytes | bytearray, at: int, problem: str) -> InputError:
    """The error for bytes that are not UTF-8: what they look like, and how to convert them."""
    source, head = _source(given), bytes(content[:CHUNK])
    found = advice(source, head)
    if found:
        what, way = found
        return InputError(f"{source.name} looks like {what}, not UTF-8 text ({problem}): {way}")
    if content[at] == 0:
        few = content.count(0) * 100 < len(content)
        way = f"; without its NUL bytes it may be a text: {_without_nul(source)}" if few else ""
        return InputError(f"{source.name} is binary, not text: {problem}{way}")
    return InputError(
        f"{source.name} is not UTF-8: {problem}; {_from_encoding(source, content, at)}"
    )


def _without_nul(source: Source) -> str:
    if source.path is None:
        return through(source, "tr -d '\\000'")
    return by(source, "tr -d '\\000' <")


def _from_encoding(source: Source, content: bytes | bytearray, at: int) -> str:
    """Advice for a text whose encoding cannot be determined for certain."""
    text = content[:CHUNK].decode("utf-8", "replace")
    bad = text.count("\ufffd")
    high = sum(x >= 0x80 for x in content[:CHUNK])
    if bad * 10 < high:  # most of the bytes that are not ASCII are valid UTF-8
        if len(content) - at < 4 and source.path is not None:
            way = by(source, f"head -c {at}")
            return f"the file ends in the middle of a character; to remove that character, {way}"
        return f"to remove the invalid bytes, {through(source, 'iconv -c -f UTF-8 -t UTF-8')}"
    if high * 3 < len(content[:CHUNK]):
        try:
            content.decode("cp1252")
            encoding = "WINDOWS-1252"
        except UnicodeDecodeError:
            encoding = "ISO-8859-1"
        way = through(source, f"iconv -f {encoding} -t UTF-8")
        return f"if it is Western European text, {way} (`iconv -l` lists other encodings)"
    way = through(source, "iconv -f ENCODING -t UTF-8")
    return f"{way}, where ENCODING is the encoding of the text: {ENCODINGS} (`iconv -l` lists all)"
