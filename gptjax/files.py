"""Files that are written whole or not at all, and JSON that is read with limits."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from gptjax.errors import InputError

# A character tokenizer of all of Unicode is 5 MB; nothing that this project writes is larger.
MAX_JSON_BYTES = 16 * 2**20


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a temporary file beside `path`, flushes it to the disk, and renames it over `path`.

    Raises:
        OSError: it cannot be written; what was at `path` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON value, indented, in ASCII."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        InputError: the file is missing, unreadable, too large, or not a JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_JSON_BYTES:
        raise InputError(f"{path}: larger than {MAX_JSON_BYTES} bytes, so no file of a run")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
