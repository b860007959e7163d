"""Runs a script's body: turns errors into one line on stderr and an exit status."""

import contextlib
import errno
import io
import logging
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptjax.app.flags import as_flag
from gptjax.app.streams import Lasting, open_closed, settle
from gptjax.backends.settings import check_xla_flags, own_settings
from gptjax.errors import ConfigError, InputError, RunError, one_line

USERS_FAULT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR)
FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130


def warner(command: str) -> Callable[[str], None]:
    """Returns a function that prints a warning: the problem does not stop the command."""

    def warn(line: str) -> None:
        print(f"{name_of(command)}: warning: {line}", file=sys.stderr, flush=True)

    return warn


def name_of(command: str) -> str:
    """The name of a command in its own messages: `train.py`, `gptjax train`.

    It leaves out the Python that starts the command, and folders.
    """
    words = shlex.split(command)
    if len(words) > 1 and Path(words[0]).name.startswith("python"):
        words = words[2:] if words[1] == "-m" else words[1:]
    return " ".join([Path(words[0]).name, *words[1:]])


def run_script(
    command: str,
    script: Callable[[list[str]], int],
    argv: list[str] | None,
    *,
    is_shown: bool = False,
) -> int:
    """Runs a script's body and turns errors that the user should see into one line on stderr.

    Args:
        command: what the user types to run it.
        argv: the flags; None means the process's arguments.
        is_shown: standard output shows only progress, not the script's result. The script
            continues if the output cannot be written or its reader has exited.

    Returns:
        The exit status: the body's return value; 2 for wrong input; 130 after Ctrl-C; 1 if the run
        cannot continue or the reader of standard output has exited.
    """
    _quiet_others()
    open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for characters that a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    out: Any = Lasting(sys.stdout, warner(command)) if is_shown else sys.stdout
    err: Any = Lasting(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if argv is None:  # this is a new process, in which JAX has not looked for devices yet
                check_xla_flags()
            with own_settings(warner(command)):
                status = script(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # nobody reads the output any more
            return FAILED
        except (Exception, KeyboardInterrupt) as error:
            known = _outcome(error)
            if known is None:
                raise
            message, status = known
        finally:
            settle(sys.stdout)
        # Join the lines into one, keeping spaces within a quoted path.
        line = " ".join(part.strip() for part in message.splitlines())
        print(f"{name_of(command)}: error: {line}", file=sys.stderr)
        return status


def _outcome(error: BaseException) -> tuple[str, int] | None:
    """The message and exit status for an error; None for a bug, which keeps its traceback."""
    match error:
        case ConfigError():
            return re.sub(f"^{error.field}\\b", as_flag(error.field), str(error)), WRONG_INPUT
        case InputError():
            return str(error), WRONG_INPUT
        case UnicodeEncodeError():
            return f"{error.object!r} has characters that paths and texts cannot have", WRONG_INPUT
        case ValueError() if "null byte" in str(error) or "null character" in str(error):
            return "a path must not contain a NUL character", WRONG_INPUT
        case RunError():
            return str(error), FAILED
        case OSError():
            status = WRONG_INPUT if error.errno in USERS_FAULT else FAILED
            return f"{error.filename or 'input or output'}: {error.strerror}", status
        case MemoryError() | RuntimeError():
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                return None
            reason = one_line(error, 200, "the machine has no more")
            advice = "a smaller model, batch_size or block_size needs less"
            return f"out of memory ({reason}): {advice}", FAILED
        case KeyboardInterrupt():
            return "interrupted", INTERRUPTED
    return None


def _quiet_others() -> None:
    """Keeps tracebacks of other libraries off the terminal.

    Orbax logs the traceback of each of its threads, and then raises the error that we report. After
    reading a damaged file it also leaves tasks unfinished, and Python would print each of them.
    """
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)


class _Unraisable:
    """Reports unraisable errors, except those of tasks that Orbax left unfinished."""

    def __init__(self, tell: Callable[[Any], object]) -> None:
        self._tell = tell

    def __call__(self, left: Any) -> None:
        if "Event loop is closed" not in str(left.exc_value):
            self._tell(left)
