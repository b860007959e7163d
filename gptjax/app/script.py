"""How a script ends: whatever happens becomes an exit status, and an error one line on stderr."""

import errno
import io
import logging
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from gptjax.app.flags import as_flag
from gptjax.errors import ConfigError, InputError, RunError, one_line

USERS_FAULT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR)
FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130


class Commands(NamedTuple):
    """What a user types to train and to sample: hints, help and errors name it."""

    train: str = "gptjax train"
    sample: str = "gptjax sample"


INSTALLED = Commands()
SCRIPTS = Commands("python train.py", "python sample.py")


def warner(command: str) -> Callable[[str], None]:
    """A function that prints a line about something wrong that does not stop the command."""

    def warn(line: str) -> None:
        print(f"{_name(command)}: warning: {line}", file=sys.stderr, flush=True)

    return warn


def _name(command: str) -> str:
    """How a command is called in its own messages: `train.py`, `gptjax train`."""
    return re.sub("^python (-m )?", "", command)


def run_script(command: str, script: Callable[[list[str]], int], argv: list[str] | None) -> int:
    """Runs a script's body and turns what a person should be told into one line on stderr.

    Args:
        command: what the user types to run it.
        argv: the flags; None is the process's own.

    Returns:
        The exit status: what the body returns; 2 for wrong input, 130 after Ctrl-C, and 1 for a
        run that cannot go on.
    """
    # Orbax logs each of its threads' tracebacks before raising what is told below, once. Where it
    # reads a damaged file, others of its tasks are left behind, and Python would tell of each.
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows its code
            stream.reconfigure(errors="backslashreplace")
    try:
        return script(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        message = re.sub(f"^{error.field}\\b", as_flag(error.field), str(error))
        status = WRONG_INPUT
    except InputError as error:
        message, status = str(error), WRONG_INPUT
    except ValueError as error:
        if isinstance(error, UnicodeEncodeError):
            message = f"{error.object!a} holds characters that no path or text can"
        elif "null byte" in str(error) or "null character" in str(error):
            message = "a path must not hold a NUL character"
        else:
            raise
        status = WRONG_INPUT
    except RunError as error:
        message, status = str(error), FAILED
    except BrokenPipeError:  # whoever read the output has left; nobody is there to be told
        sys.stdout = None  # type: ignore[assignment]  # nor may the interpreter flush at exit
        return FAILED
    except OSError as error:
        message = f"{error.filename or 'input or output'}: {error.strerror}"
        status = WRONG_INPUT if error.errno in USERS_FAULT else FAILED
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = one_line(error, 200, "no more is to be had")
        message = f"out of memory ({reason}): a smaller model, batch_size or block_size takes less"
        status = FAILED
    except KeyboardInterrupt:
        message, status = "interrupted", INTERRUPTED
    print(f"{_name(command)}: error: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Unraisable:
    """Tells of errors that nobody can catch, but for those of tasks that Orbax left behind."""

    def __init__(self, tell: Callable[[Any], object]) -> None:
        self._tell = tell

    def __call__(self, left: Any) -> None:
        if "Event loop is closed" not in str(left.exc_value):
            self._tell(left)
