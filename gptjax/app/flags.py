"""Command-line flags, made from the configuration's fields. Errors are one line."""

import argparse
import dataclasses
import difflib
import os
import typing
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

from gptjax.app import foreign_flags
from gptjax.app.flag_values import Once, Switch, number, one_of, show, which_step, whole_number
from gptjax.config import RunConfig
from gptjax.errors import InputError
from gptjax.fields import without_none
from gptjax.version import __version__

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# The hyphen, and the dashes that word processors replace it with.
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"


def as_flag(field: str) -> str:
    """The flag for a field: n_layer becomes --n-layer."""
    return "--" + field.replace("_", "-")


class FlagParser(argparse.ArgumentParser):
    """argparse with one-line errors, and flags that accept both `-` and `_`.

    Flags that the user did not give are absent from the result, so a caller can tell. A flag may be
    given only once, unless it collects its values.

    Args:
        foreign: advice for flags of other programs that users type here.
        takes_paths: arguments that belong to no flag are paths; see `parse_with_paths`.
    """

    def __init__(
        self,
        prog: str,
        description: str,
        add_help: bool = True,
        foreign: foreign_flags.Advice | None = None,
        takes_paths: bool = False,
    ) -> None:
        self._foreign, self._takes_paths = foreign or {}, takes_paths
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
            self.add_argument(
                "--version", action="version", version=version, help="print the version"
            )

    def error(self, message: str) -> NoReturn:
        """Raises an InputError, which `run_script` prints."""
        raise InputError(f"{message} (--help lists the flags)")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Accepts `--` as a value: before Python 3.13, argparse drops it and returns none."""
        if action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def add(self, name: str, kind: Any, help: str, default: Any = None) -> None:
        """Adds the flag of a field.

        Args:
            kind: the field's type: bool, int, float, str, a Literal of strings, or an Optional of
                these; tuple[str, ...] for a flag that may be repeated. Path means a str in which
                `~` is expanded, because a shell does not expand it in `--data=~/my.txt`.
            default: shown in the help. The parsed result leaves out flags that were not given.
        """
        shown = "" if default in (None, "", ()) else f" [{show(default)}]"
        text = (help + shown).replace("%", "%%")
        kind = without_none(kind)
        if kind == tuple[str, ...]:
            self.add_argument(as_flag(name), action="append", metavar="str", help=text)
        elif kind is bool:
            self.add_argument(as_flag(name), action=Switch, help=text)
        elif typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            self.add_argument(
                as_flag(name),
                action=Once,
                type=one_of(choices),
                help=text,
                metavar="{" + ",".join(choices) + "}",
            )
        else:
            types = {int: whole_number, float: number, str: str, Path: os.path.expanduser}
            metavar = kind.__name__.lower()
            self.add_argument(
                as_flag(name), action=Once, type=types[kind], help=text, metavar=metavar
            )

    def add_step(self, purpose: str) -> None:
        """Adds --step, which names a checkpoint. `purpose` is what the command does with it."""
        self.add_argument(
            "--step",
            action=Once,
            type=which_step,
            metavar="{best,latest,N}",
            help=f"checkpoint to {purpose} [best]",
        )

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
                kind = Path if field.metadata["path"] else hints[field.name]
                self.add(field.name, kind, field.metadata["help"], value)

    def parse(self, argv: list[str]) -> dict[str, Any]:
        """Returns the given values by field name; a repeatable flag has a tuple.

        Raises:
            InputError: a flag is unknown, lacks its value, or has one of the wrong type.
        """
        values, others = self.parse_with_paths(argv)
        if others:
            self._refuse(*others)
        return values

    def parse_with_paths(self, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Like `parse`; also returns the other arguments, such as paths, in order."""
        known, unknown = self.parse_known_args(list(self._normalized(argv)))
        for i, argument in enumerate(unknown):
            if argument.startswith(tuple(DASHES)):
                self._refuse(*unknown[i:])
        values = vars(known).items()
        return {name: tuple(v) if isinstance(v, list) else v for name, v in values}, unknown

    def parse_some(self, argv: list[str]) -> dict[str, Any]:
        """Like `parse`, but ignores unknown flags. For a flag that decides the others' defaults."""
        return vars(self.parse_known_args(list(self._normalized(argv)))[0])

    def _refuse(self, argument: str, following: str = "", *_: str) -> NoReturn:
        """Raises an error for an unknown argument, which says what to type instead."""
        flag, value = argument.partition("=")[::2]
        if not flag.startswith(tuple(DASHES)):
            way = f": {foreign_flags.FILE}" if flag.endswith(".py") else ""
            self.error(f"{flag!r} is not a flag{way}")
        advice = self._foreign.get(flag, "")
        if not isinstance(advice, str):
            value = (value or following).lower()
            advice = advice.get(value, advice[""])
        if advice:
            self.error(f"there is no {flag} here: {advice}")
        near = self._nearest(flag)
        self.error(f"unknown flag {flag}" + (f": did you mean {near}?" if near else ""))

    def _nearest(self, flag: str) -> str | None:
        """The known flag that the user probably meant; None if no name is close."""
        name = flag.strip(DASHES).replace("_", "-").lower()
        negative = name.startswith("no-")
        names = [
            known[2:]
            for known in self._option_string_actions
            if known.startswith("--") and known.startswith("--no-") == negative
        ]
        name = foreign_flags.OTHER_NAMES.get(name, name)
        # The default ratio, 0.6, would suggest --optimizer for --compile.
        near = difflib.get_close_matches(name, names, 1, 0.75)
        parts = [known for known in names if name in known.split("-")]
        near = near or (parts if len(parts) == 1 else [])
        return f"--{near[0]}" if near else None

    def _normalized(self, argv: list[str]) -> Iterator[str]:
        """Replaces `_` by `-` in flags, and joins each value to its flag: it may start with `-`."""
        rest = deque(argv)
        while rest:
            flag, equals, value = self._split(rest.popleft())
            action = self._option_string_actions.get(flag)
            if action and not equals and rest and self._is_value(action, rest[0]):
                equals, value = "=", rest.popleft()
            if isinstance(action, Switch) and equals:
                yield self._switched(flag, value)
            else:
                yield flag + equals + value

    def _split(self, argument: str) -> tuple[str, str, str]:
        """Splits `--flag=value`. Any other argument is returned as an unknown flag."""
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("_", "-")
        return flag, equals, value

    def _is_value(self, action: argparse.Action, following: str) -> bool:
        """Whether the next argument is a value of this flag, and not another flag."""
        if self._split(following)[0] in self._option_string_actions:
            return False
        if isinstance(action, Switch) and self._takes_paths:
            return following.lower() in TRUE + FALSE
        return action.nargs is None or (
            isinstance(action, Switch) and not following.startswith("-")
        )

    def _switched(self, flag: str, value: str) -> str:
        """Rewrites a switch that has a value: --bias=False becomes --no-bias."""
        if value.lower() not in TRUE + FALSE:
            self.error(f"{flag} {value!r} must be true or false, or be left out")
        if value.lower() in TRUE:
            return flag
        return f"--{flag[5:]}" if flag.startswith("--no-") else f"--no-{flag[2:]}"
