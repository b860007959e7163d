"""The page of all measurements on one kind of device: accelerator.json and accelerator.md."""

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.accelerator_parts.process import ROOT
from gptjax.errors import InputError
from gptjax.files import read_json, write_json, write_whole

JSON, MARKDOWN = "accelerator.json", "accelerator.md"


class Part(NamedTuple):
    """A part of the measurement.

    Attributes:
        name: its key in the JSON.
        title: its heading.
        module: the module that measures it.
        limit: maximum time in seconds.
        settings: arguments of the module's `measure`.
        flag: the command's flag for this part; empty for parts that are always measured.
        data: whether the part reads a text.
    """

    name: str
    title: str
    module: str
    limit: float
    settings: Mapping[str, Any] = MappingProxyType({})
    flag: str = ""
    data: bool = False


DEVICE = Part("device", "The device", "device", 60)
# The most important first, because the time may run out before the last.
PARTS = (
    DEVICE,
    Part("steps", "`shakespeare` beside PyTorch", "beside", 110, {"shape": "shakespeare"}),
    Part("gpt2", "GPT-2 124M beside PyTorch", "beside", 170, {"shape": "GPT-2 124M"}),
    Part(
        "profile",
        "The costliest operations",
        "profile",
        90,
        {"shapes": ["GPT-2 124M", "shakespeare"]},
    ),
    Part(
        "attention",
        "Forms of attention",
        "attention",
        150,
        {"shapes": ["shakespeare", "shakespeare, no dropout", "GPT-2 124M"]},
    ),
    Part("dispatch", "Updates a dispatch", "dispatch", 45, {"shape": "shakespeare"}),
    Part("sampling", "Sampling", "sampling", 60, {"shape": "shakespeare"}),
    Part("seeds", "Five seeds at once", "seeds", 60),
    Part("train", "Training `shakespeare`", "runs", 3600, {"kind": "seeds"}, "train", True),
    Part(
        "candidates",
        "Other settings for `shakespeare`",
        "runs",
        3600,
        {"kind": "candidates"},
        "candidates",
        True,
    ),
    Part(
        "resume",
        "A checkpoint, here and on a CPU",
        "sameness",
        300,
        {"what": "resume"},
        "resume-check",
        True,
    ),
    Part(
        "deterministic",
        "The same run twice",
        "sameness",
        300,
        {"what": "repeat"},
        "deterministic",
        True,
    ),
)


def opened(folder: Path, quick: bool) -> dict[str, Any]:
    """Reads the results in a folder, to add to them; empty if there are none, or only toy results.

    Raises:
        InputError: this program did not write the file, or toy results would replace real ones.
    """
    path, nothing = folder / JSON, {"quick": quick, "parts": {}}
    if not path.is_file():
        return nothing
    results = read_json(path)
    if not isinstance(results.get("parts"), dict):
        raise InputError(f"{path} is not of this program: move it away, or give another --out")
    if quick and not results.get("quick"):
        raise InputError(f"{path} has figures that --quick would replace: give another --out")
    return nothing if quick or results.get("quick") else results


def use_device(results: dict[str, Any], row: dict[str, Any]) -> None:
    """Records the device, and removes the parts of another kind of device."""
    if results.get("device", row)["kind"] != row["kind"]:
        for name in [name for name in results["parts"] if name != DEVICE.name]:
            del results["parts"][name]
    results["device"] = row


def entry(settings: dict[str, Any]) -> dict[str, Any]:
    """An entry for a part that is not measured yet."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return {"settings": settings, "began": now, "commit": commit(), "rows": [], "why": ""}


def commit() -> str:
    """The commit of this clone, with a + if files have changed; empty without git."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=9"]
    try:
        return subprocess.run(git, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def write(folder: Path, results: dict[str, Any]) -> None:
    """Writes both files, each wholly or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON, results)
    write_whole(folder / MARKDOWN, whole(results))


def whole(results: dict[str, Any]) -> str:
    """The page."""
    kind = results.get("device", {}).get("kind", "an accelerator")
    toys = " Toy sizes: the figures mean nothing." if results["quick"] else ""
    parts = [
        f"# Measured on {kind}",
        f"Written by benchmarks/accelerator.py; the raw numbers are in {JSON}.{toys}",
        *(section(part, results) for part in PARTS if part.name in results["parts"]),
    ]
    return "\n\n".join(parts) + "\n"


def section(part: Part, results: dict[str, Any]) -> str:
    """One part: its table so far, and the reason if it did not finish."""
    found = results["parts"][part.name]
    lines = [f"## {part.title}"]
    if found["rows"]:
        table = import_module(f"{__package__}.{part.module}").table
        lines.append(
            table(found["rows"], device=results.get("device", {}), **found["settings"]).strip()
        )
    note = f"{found['began']} UTC, commit {found['commit'] or 'unknown'}"
    if "seconds" in found:
        note += f", {found['seconds']:.0f} s"
    if found["why"]:
        note += f". **Not whole:** {found['why']}"
    return "\n\n".join([*lines, note + "."])
