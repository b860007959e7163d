"""Small texts that replace the named corpora, served from the test's files."""

import hashlib
import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from gptjax.text.records import CORPORA, Web

ROOT = Path(__file__).parents[1]


def prepare_py() -> ModuleType:
    """data/prepare.py as a module."""
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "data" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in(
    monkeypatch: pytest.MonkeyPatch, name: str, place: Path, *contents: bytes
) -> list[Path]:
    """Replaces a corpus by these bytes: changes the sizes and digests in its record.

    The cuts are at 90 % and 95 %, as in the real corpora.

    Returns:
        What is on the "web": the files, or the archives in which they are.
    """
    known, files, paths = CORPORA[name], [], []
    place.mkdir(exist_ok=True)
    for file, content in zip(known.files, contents, strict=True):
        web = file.sources[0]
        assert isinstance(web, Web)
        path = place / Path(web.url).name
        if web.member:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("../outside", "not to be unpacked")
                archive.writestr(web.member, content)
        else:
            path.write_bytes(content)
        web = web._replace(url=path.as_uri(), size=path.stat().st_size)
        sha256 = hashlib.sha256(content).hexdigest()
        files.append(file._replace(size=len(content), sha256=sha256, sources=(web,)))
        paths.append(path)
    cuts = tuple(len(contents[0]) * x // 100 for x in (90, 95)) if known.cuts else ()
    monkeypatch.setitem(CORPORA, name, known._replace(files=tuple(files), cuts=cuts))
    return paths
