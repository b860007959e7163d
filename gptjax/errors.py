"""The failures that are told to a person in one line.

Anything else that escapes is a defect of this project and keeps its traceback.
"""

from typing import Any


def one_line(error: BaseException | str, most: int = 300) -> str:
    """What an error says, as one line of at most `most` characters; its type if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class InputError(ValueError):
    """Something the user gave is wrong: a flag, a file, a prompt, a folder (exit status 2).

    The message is one line that names the value, the rule and the way out.
    """


class ConfigError(InputError):
    """A field of the configuration is wrong; the scripts name it by its flag.

    Attributes:
        field: the field's name.
    """

    def __init__(self, field: str, value: Any, rule: str) -> None:
        super().__init__(f"{field} ({value}) {rule}")
        self.field = field


class RunError(RuntimeError):
    """A run cannot go on though nothing the user typed is wrong: a loss that is not finite, a
    checkpoint that cannot be written (exit status 1).
    """
