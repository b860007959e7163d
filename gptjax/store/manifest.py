"""The manifest of a checkpoint, and the check that its files are unchanged.

`manifest.json` holds the step, the validation loss, the number of skipped updates, and the sha256
of every file, because Orbax does not notice a flipped bit. A checkpoint is whole if it has exactly
these files. Files that an operating system added (`files.is_foreign`) are ignored, unless they are
links or devices.
"""

import hashlib
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptjax.errors import InputError
from gptjax.files import flush, is_foreign, open_regular, read_json, write_json
from gptjax.version import __version__

MANIFEST = "manifest.json"
FORMAT = 1
MAX_MANIFEST_BYTES = 4 * 2**20  # 100 bytes per file; Orbax writes about ten files per gigabyte
MAX_METADATA_BYTES = 16 * 2**20  # per metadata file; arrays are in folders named d
ITEMS = ("params", "opt_state")


class DamagedError(InputError):
    """A checkpoint differs from what was saved; the message names the file."""


def write_manifest(path: Path, step: int, val_loss: float | None, skipped: int) -> None:
    """Flushes a checkpoint's files to disk, then writes the manifest that lists them."""
    # Foreign files are not listed, because the system may change or remove them at any time.
    files = sorted(name for name in _files(path) if name != MANIFEST and not _is_foreign(name))
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "step": step,
        "val_loss": val_loss,
        "skipped": skipped,
        "files": {name: _sha256(path / name) for name in files},
    }
    for name in files:
        flush(path / name)
    for folder in {(path / name).parent for name in files}:
        flush(folder)
    write_json(path / MANIFEST, manifest)


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads and validates a checkpoint's manifest. Reads no other file.

    Raises:
        DamagedError: the manifest is missing, has another format, or is not valid.
    """
    if path.is_symlink():
        raise DamagedError(f"checkpoint {path} is a link, which a run must not contain")
    try:
        manifest = read_json(path / MANIFEST, MAX_MANIFEST_BYTES)
    except InputError as error:
        raise DamagedError(f"checkpoint {path} is incomplete: {error}") from error
    if manifest.get("format") != FORMAT:
        raise DamagedError(
            f"checkpoint {path} has format {manifest.get('format')!r}, written by gptjax "
            f"{manifest.get('version')}; this is gptjax {__version__}, which reads format {FORMAT}"
        )
    val_loss, files, skipped = (manifest.get(k) for k in ("val_loss", "files", "skipped"))
    no_loss = val_loss is not None and not (isinstance(val_loss, float) and math.isfinite(val_loss))
    no_count = skipped is not None and not (type(skipped) is int and 0 <= skipped < 2**31)
    other_step = manifest.get("step") != int(path.name)
    if not isinstance(files, dict) or no_loss or no_count or other_step:
        raise DamagedError(f"checkpoint {path} is damaged: {MANIFEST} is not a valid manifest")
    if any(".." in name.split("/") or name.startswith("/") for name in files):
        raise DamagedError(f"checkpoint {path} is damaged: {MANIFEST} names a file outside of it")
    return manifest


def verify(path: Path, items: tuple[str, ...] = ITEMS) -> int:
    """Compares the files of a checkpoint with its manifest.

    Args:
        items: the items that will be loaded; the files of other items are not checked.

    Returns:
        The total size of the files in bytes.

    Raises:
        DamagedError: a file is missing, has changed, is not in the manifest, is a link or a
            device, or is too large to parse.
    """

    def is_read(name: str) -> bool:
        return name != MANIFEST and ("/" not in name or name.split("/")[0] in items)

    listed, found = read_manifest(path)["files"], [name for name in _files(path) if is_read(name)]
    digests = {name: d for name, d in listed.items() if is_read(name) and not _is_foreign(name)}
    there = {name for name in found if not _is_foreign(name)}
    for name in sorted(there ^ digests.keys()):
        if name in there:
            raise DamagedError(f"checkpoint {path} is damaged: {name} does not belong to it")
        raise DamagedError(f"checkpoint {path} is incomplete: {name} is missing")
    # Foreign files are not opened here, but a forged array could make TensorStore read one. So
    # the total includes them.
    total = sum(_regular_size(path, name) for name in found if _is_foreign(name))
    for name, digest in digests.items():
        size = (path / name).stat(follow_symlinks=False).st_size
        if (path / name).parent.name != "d" and size > MAX_METADATA_BYTES:
            raise DamagedError(f"checkpoint {path} is damaged: {name} is too large")
        try:
            same = _sha256(path / name) == digest
        except InputError as error:
            raise DamagedError(f"checkpoint {path} is damaged: {error}") from error
        if not same:
            raise DamagedError(f"checkpoint {path} is damaged: {name} has changed since the save")
        total += size
    return total


def _files(path: Path) -> Iterator[str]:
    """Yields the paths of all files in a checkpoint, relative to it. Follows no links.

    Raises:
        DamagedError: the checkpoint itself is a link.
    """
    if path.is_symlink():
        raise DamagedError(f"checkpoint {path} is a link, which a run must not contain")
    folders = [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    yield Path(entry.path).relative_to(path).as_posix()


def _is_foreign(name: str) -> bool:
    return is_foreign(name.rpartition("/")[2])


def _regular_size(path: Path, name: str) -> int:
    """Size of a foreign file in bytes; 0 if it has disappeared, as NFS's temporary files do.

    Raises:
        DamagedError: the path is a link, a pipe or a device.
    """
    try:
        found = (path / name).stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        raise DamagedError(f"checkpoint {path} is damaged: {name} is not a regular file")
    return found.st_size


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
