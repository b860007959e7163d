"""Fields of a configuration: their help, their rules, and reading them from JSON."""

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

from gptjax.errors import ConfigError, InputError

T = TypeVar("T")

MAX_INT = 2**31
# The numbers below this round to a finite float32. The largest float32 itself is not the limit:
# NumPy prints it as 3.4028235e+38, which as a Python number is slightly larger.
FLOAT32_LIMIT = 2.0**128 - 2.0**103


def flag(
    default: Any, help: str, *, int32: bool = True, off: Any = None, path: bool = False
) -> Any:
    """A dataclass field with its one line of help, which is also the help of its flag.

    Args:
        int32: a whole number must be below 2**31: steps and positions are int32 on the device.
        off: for a field that may be None, the number that has the same effect as None.
        path: a string is the path of a file or folder.
    """
    metadata = {"help": help, "int32": int32, "off": off, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


def check(ok: bool, name: str, value: Any, rule: str) -> None:
    """Raises ConfigError, with the field, its value and the rule, if not `ok`."""
    if not ok:
        raise ConfigError(name, value, rule)


def check_types(config: Any) -> None:
    """Checks each field against its annotation.

    A float field takes an int, no bool is a number, and no float may be infinite or NaN. A field
    of `type | None` may be None.

    Raises:
        ConfigError: a value does not fit.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        kind, value = without_none(hints[field.name]), getattr(config, field.name)
        if value is None and kind != hints[field.name]:
            continue
        object.__setattr__(config, field.name, _checked(field, kind, value))


def _checked(field: Any, kind: Any, value: Any) -> Any:
    """The value, checked; an int in a float field becomes a float, so that 1 and 1.0 hash alike."""
    name = field.name
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        check(value in choices, name, repr(value), f"must be one of {', '.join(choices)}")
    elif kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Not isfinite: an int of 400 digits has no float to ask.
        ok = number and abs(value) < FLOAT32_LIMIT
        check(ok, name, value, "must be a finite float32 number")
        return float(value)
    elif kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        check(whole, name, repr(value), "must be a whole number")
        fits = value < MAX_INT or not field.metadata.get("int32", True)
        check(fits, name, value, "must be below 2**31")
    elif isinstance(kind, type) and not isinstance(kind, types.GenericAlias):
        check(isinstance(value, kind), name, repr(value), f"must be a {kind.__name__}")
    return value


def without_none(hint: Any) -> Any:
    """The type of a field without None: int for `int | None`."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if is_union and len(kinds) == 1 else hint


def from_dict(cls: type[T], values: Any) -> T:
    """A dataclass from plain values, nested dataclasses included.

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
