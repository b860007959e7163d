"""The text: a corpus by name, fetched and verified, or any UTF-8 file.

Tiny Shakespeare comes from the first of three sources that answers: the file under data/, the web,
and a wheel of the package index that carries the same text (for machines that reach an index but
not the web). All must match one sha256.
"""

import hashlib
import io
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.files import write_whole
from gptjax.text.reading import decode, read_bytes

NAME = "shakespeare"
FILE = "shakespeare.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SIZE = 1_115_394
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
WHEEL = "dm-sonnet==1.36"
WHEEL_PARTS = [f"sonnet/examples/data/ts.{part}.txt" for part in ("train", "valid", "test")]

# Seconds. A source that is there answers within the first; one that answers may be slow.
ANSWER_WITHIN = 6.0
WEB_WITHIN = 60.0
PIP_WITHIN = 90.0


class Text(NamedTuple):
    """A text, its name or absolute path, and the sha256 of its bytes."""

    text: str
    source: str
    sha256: str


def load_text(
    data: str,
    data_dir: Path,
    tell: Callable[[str], None] = lambda _: None,
    stored: bool = False,
) -> Text:
    """The corpus of that name, fetched into `data_dir` if need be, or the UTF-8 file at that path.

    Newlines stay as they are in the file.

    Args:
        tell: receives a line of progress.
        stored: the path is out of a run, which may be a stranger's: a pipe or a device is refused.

    Raises:
        InputError: the file is missing, empty, a directory, binary or not UTF-8; or no source of
            the corpus answers, or one has another sha256.
    """
    if data == NAME:
        path, source = fetch(data_dir, tell), NAME
    else:
        path, source = Path(data), str(Path(data).absolute())
        if stored and path.exists() and not path.is_file():
            raise InputError(f"{path}, the text that the run names, is not a file")
    content = read_bytes(path)
    return Text(decode(path, content), source, hashlib.sha256(content).hexdigest())


def fetch(data_dir: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The path of tiny Shakespeare under `data_dir`, fetched and verified if it is not there.

    Raises:
        InputError: the file there is another text, or no source answers with the right one.
    """
    path = data_dir / FILE
    if path.exists():
        content = read_bytes(path)
        if not is_right(content):
            raise InputError(
                f"{path} is not tiny Shakespeare: its sha256 is {_sha256(content)} and should be "
                f"{SHA256}; delete it to have it fetched again, or train on it with --data {path}"
            )
        return path
    tried = []
    for name, source in ((URL, from_web), (f"the wheel of {WHEEL}, by pip", from_wheel)):
        tell(f"fetching tiny Shakespeare from {name}")
        try:
            content = source()
        except Exception as error:  # whatever is wrong with a source, the next may answer
            tried.append(f"{name}: {_one_line(error)}")
            continue
        if is_right(content):
            data_dir.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
            return path
        tried.append(f"{name}: sha256 {_sha256(content)} instead of {SHA256}")
    raise InputError(
        f"no source of tiny Shakespeare answered ({'; '.join(tried)}): bring the file by hand to "
        f"{path} (from {URL}), or train on a text of your own with --data"
    )


def is_right(content: bytes) -> bool:
    """Whether these bytes are tiny Shakespeare."""
    return len(content) == SIZE and _sha256(content) == SHA256


def from_web(url: str = URL, answer_within: float = ANSWER_WITHIN) -> bytes:
    """The file's bytes from the web.

    A thread does it, because neither a slow name server nor a packet that is dropped heeds a
    socket's time-out; a source that does not answer costs `answer_within` seconds.

    Raises:
        OSError: no answer in time, or a refusal.
    """
    chunks: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def read() -> None:
        try:
            with urllib.request.urlopen(url, timeout=answer_within) as response:
                while chunk := response.read(2**16):
                    chunks.put(chunk)
            chunks.put(b"")
        except BaseException as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            chunks.put(error)

    threading.Thread(target=read, daemon=True).start()
    content = io.BytesIO()
    deadline = time.monotonic() + WEB_WITHIN
    while content.tell() <= SIZE:
        try:
            chunk = chunks.get(timeout=min(answer_within, max(deadline - time.monotonic(), 0.01)))
        except queue.Empty:
            raise TimeoutError(f"no answer within {answer_within:.0f} s") from None
        if isinstance(chunk, BaseException):
            raise chunk
        if not chunk:
            break
        content.write(chunk)
    return content.getvalue()


def from_wheel() -> bytes:
    """The file's bytes out of the wheel, downloaded by this Python's pip; nothing is installed.

    Raises:
        OSError: there is no pip, or it cannot fetch the wheel.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", WHEEL, "--dest", folder]
        command += ["--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
        command += ["--disable-pip-version-check", "--retries=1", f"--timeout={ANSWER_WITHIN:.0f}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PIP_WITHIN, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"no answer within {PIP_WITHIN:.0f} s") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if "ERROR" in line] or lines
            raise OSError((errors or ["pip failed"])[-1])
        with zipfile.ZipFile(wheels[0]) as wheel:
            return b"".join(wheel.read(part) for part in WHEEL_PARTS)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
