"""Folders of documents, the command that prepares them, and what it wrote."""

from gptjax import __main__ as command
from gptjax.text.prepared import read_prepared

from strange import CHINESE, EMOJI, HINDI

TEXT = (CHINESE + HINDI + EMOJI) * 9


def documents(folder, count, start=0):
    """A folder of this many files, whose names are in another order than their contents."""
    folder.mkdir()
    for i in range(count):
        content = f"document {i}: {TEXT[i : i + 40]}"
        (folder / f"{(i * 7919 + start) % 100003:06}.txt").write_text(content)
    return folder


def opened(out):
    return read_prepared(out, None, None, out.parent)


def run(*argv):
    return command.main(["prepare", *map(str, argv)])


def said(capsys, status, *argv):
    """Runs the command, which must print one line to stderr; returns the line."""
    capsys.readouterr()
    assert run(*argv) == status
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    return error
