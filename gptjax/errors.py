"""Failures that the user sees as one line.

Any other exception is a defect of this project and keeps its traceback.
"""

from typing import Any


def one_line(message: object, most: int = 300, otherwise: str = "") -> str:
    """A message on one line of at most `most` characters.

    Args:
        otherwise: used if the message is empty; by default the name of its type.
    """
    return " ".join(str(message).split())[:most] or otherwise or type(message).__name__


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
    """A run cannot continue, although the user's input is right: a loss that is not finite, a
    checkpoint that cannot be written (exit status 1).
    """
