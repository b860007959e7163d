"""The commands that a training run prints at its end, ready to paste into a shell."""

import sys
from pathlib import Path

from gptjax.text.shell import Commands, quoted

# How much of the text to search for a prompt, and the longest prompt, both in characters.
LOOKED_AT, PROMPT = 2**16, 24


def resume(commands: Commands, path: Path) -> str:
    """The command that resumes a run."""
    return f"{commands.train} --out-dir {quoted(path)} --resume"


def sample(commands: Commands, path: Path, text: str) -> str:
    """The command that samples from a run, with a prompt from the run's own text."""
    prompt = prompt_of(text)
    return f"{commands.sample} --out-dir {quoted(path)}" + (
        f" --prompt {quoted(prompt)}" if prompt else ""
    )


def page(commands: Commands, path: Path) -> str:
    """The command that writes a run's page."""
    return f"{commands.page} {quoted(path)}"


def prompt_of(text: str) -> str:
    """The text's first words that the terminal can show; empty if there are none."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in text[:LOOKED_AT].splitlines():
        line = line.strip()
        shown = line.encode(encoding, "ignore").decode(encoding) == line
        # A prompt that begins with a dash could be taken for a flag.
        if line and line.isprintable() and shown and not line.startswith("-"):
            words = line[: PROMPT + 1].rsplit(" ", 1)[0] if len(line) > PROMPT else line
            return words[:PROMPT].strip()
    return ""
