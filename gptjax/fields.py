"""Fields of a configuration: their help, their rules, and their way out of JSON."""

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

from gptjax.errors import ConfigError, InputError

T = TypeVar("T")

MAX_INT = 2**31
MAX_FLOAT = 3.4e38  # what a float32 holds


def flag(default: Any, help: str) -> Any:
    """A dataclass field with its one line of help, which is also the help of its flag."""
    return dataclasses.field(default=default, metadata={"help": help})


def check(ok: bool, name: str, value: Any, rule: str) -> None:
    """Raises ConfigError, with the field, its value and the rule, if not `ok`."""
    if not ok:
        raise ConfigError(name, value, rule)


def check_types(config: Any) -> None:
    """Holds each field to its annotation.

    A float field takes an int, no bool is a number, and no float may be infinite or NaN.

    Raises:
        ConfigError: one does not fit.
    """
    hints = typing.get_type_hints(type(config))
    for name, hint in hints.items():
        value = getattr(config, name)
        if typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            check(value in choices, name, repr(value), f"must be one of {', '.join(choices)}")
        elif hint is float:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            # Not isfinite: an int of 400 digits has no float to ask.
            check(
                number and abs(value) <= MAX_FLOAT, name, value, "must be a finite float32 number"
            )
            object.__setattr__(config, name, float(value))  # 1 and 1.0 must hash and store alike
        elif hint is int:
            whole = isinstance(value, int) and not isinstance(value, bool)
            check(whole, name, repr(value), "must be a whole number")
            # Steps and places in the text are int32 on the device; a seed has a rule of its own.
            check(value < MAX_INT or name == "seed", name, value, "must be below 2**31")
        elif isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
            check(isinstance(value, hint), name, repr(value), f"must be a {hint.__name__}")


def from_dict(cls: type[T], values: Any) -> T:
    """A dataclass of plain values, those of dataclasses within it too.

    Raises:
        InputError: an entry is unknown, of the wrong type or out of its range.
    """
    if not isinstance(values, dict):
        raise InputError(f"{cls.__name__}: expected an object, found {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{cls.__name__} has no field {unknown[0]!r}")
    known = {
        name: from_dict(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
        for name, value in values.items()
    }
    return cls(**known)
