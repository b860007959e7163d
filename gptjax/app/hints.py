"""The commands that a training run prints: what to type next, ready to paste."""

import sys
from pathlib import Path

from gptjax.text.shell import Commands, quoted

# Of a text, where a prompt is looked for, and how long one may be.
LOOKED_AT, PROMPT = 2**16, 24


def resume(commands: Commands, path: Path) -> str:
    """The command that goes on with a run."""
    return f"{commands.train} --out-dir {quoted(path)} --resume"


def sample(commands: Commands, path: Path, text: str) -> str:
    """The command that samples from a run, with a prompt out of its own text."""
    prompt = prompt_of(text)
    return f"{commands.sample} --out-dir {quoted(path)}" + (
        f" --prompt {quoted(prompt)}" if prompt else ""
    )


def prompt_of(text: str) -> str:
    """The first words of the text that a person can type and a terminal can show; or none."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in text[:LOOKED_AT].splitlines():
        line = line.strip()
        shown = line.encode(encoding, "ignore").decode(encoding) == line
        # One that begins with a dash might be a flag.
        if line and line.isprintable() and shown and not line.startswith("-"):
            words = line[: PROMPT + 1].rsplit(" ", 1)[0] if len(line) > PROMPT else line
            return words[:PROMPT].strip()
    return ""
