"""Flags: made from the configuration's fields, and read with errors of one line."""

import argparse
import dataclasses
import difflib
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn

from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.fields import without_none
from gptjax.version import __version__


def as_flag(field: str) -> str:
    """The flag of a field: n_layer is --n-layer."""
    return "--" + field.replace("_", "-")


class FlagParser(argparse.ArgumentParser):
    """argparse with errors of one line, and flags that take `-` and `_` alike.

    Flags that are not given are absent from the result, so that a caller can tell.
    """

    def __init__(self, prog: str, description: str, add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            usage="%(prog)s [flags]",
            add_help=add_help,
            description=description,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if add_help:
            version = f"gptjax {__version__}"
            self.add_argument("--version", action="version", version=version, help="print it")

    def error(self, message: str) -> NoReturn:
        """Raises what `run_script` prints."""
        raise InputError(f"{message} (--help lists the flags)")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """The value `--` is one: before Python 3.13, argparse drops it and returns no value."""
        if action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def add(self, name: str, kind: Any, help: str, default: Any = None) -> None:
        """Adds the flag of a field.

        Args:
            kind: the field's type: bool, int, float, str, a Literal of strings, or one of these or
                None; tuple[str, ...] for a flag that may be repeated.
            default: shown in the help; the parsed result leaves out what was not given.
        """
        shown = "" if default is None or default == "" else f" [{_show(default)}]"
        text = (help + shown).replace("%", "%%")
        kind = without_none(kind)
        if kind == tuple[str, ...]:
            self.add_argument(as_flag(name), action="append", metavar="str", help=text)
        elif kind is bool:
            self.add_argument(as_flag(name), action=argparse.BooleanOptionalAction, help=text)
        elif typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            self.add_argument(
                as_flag(name),
                type=one_of(choices),
                help=text,
                metavar="{" + ",".join(choices) + "}",
            )
        else:
            types = {int: whole_number, float: number, str: str}
            self.add_argument(as_flag(name), type=types[kind], help=text, metavar=kind.__name__)

    def add_config(self, defaults: RunConfig) -> None:
        """Adds every field of the configuration that has a help text."""
        for part in (defaults, defaults.model, defaults.train):
            self.add_fields(part)

    def add_fields(self, defaults: Any) -> None:
        """Adds every field of a dataclass that has a help text, with its value as the default."""
        hints = typing.get_type_hints(type(defaults))
        for field in dataclasses.fields(defaults):
            if "help" in field.metadata:
                value = getattr(defaults, field.name)
                self.add(field.name, hints[field.name], field.metadata["help"], value)

    def parse(self, argv: list[str]) -> dict[str, Any]:
        """What was given, by field name; a tuple for a flag that may be repeated.

        Raises:
            InputError: a flag is unknown, lacks its value, or has one of the wrong type.
        """
        known, unknown = self.parse_known_args(list(self._normalized(argv)))
        if unknown:
            flag = unknown[0].split("=")[0]
            if not flag.startswith("-"):
                self.error(f"{flag!r} belongs to no flag")
            near = difflib.get_close_matches(flag, self._option_string_actions, 1)
            self.error(f"unknown flag {flag}" + (f": did you mean {near[0]}?" if near else ""))
        values = vars(known).items()
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values}

    def parse_some(self, argv: list[str]) -> dict[str, Any]:
        """The same, passing over what is unknown: for a flag that decides the others' defaults."""
        return vars(self.parse_known_args(list(self._normalized(argv)))[0])

    def _normalized(self, argv: Iterable[str]) -> Iterable[str]:
        """Flags with `-` for `_`, and each value joined to its flag: it may start with a dash."""
        waiting = None
        for argument in argv:
            flag, equals, value = argument.partition("=")
            if flag.startswith("--"):
                flag = "--" + flag[2:].replace("_", "-")
            action = self._option_string_actions.get(flag)
            if waiting is not None:
                if action is None:
                    yield f"{waiting}={argument}"
                    waiting = None
                    continue
                yield waiting
                waiting = None
            if action is not None and action.nargs is None and not equals:
                waiting = flag
            else:
                yield flag + equals + value
        if waiting is not None:
            yield waiting


def whole_number(text: str) -> int:
    """An int, with an error that says what it takes."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number") from None


def number(text: str) -> float:
    """A float, with an error that says what it takes."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number") from None


def one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    """A type that takes one of some words."""

    def choose(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} must be one of {', '.join(choices)}")
        return text

    return choose


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
