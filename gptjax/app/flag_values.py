"""Flag values: typed values, true and false for switches, and the check for repeated flags."""

import argparse
from collections.abc import Callable
from typing import Any


class Once(argparse.Action):
    """Stores a flag's value, and refuses a second, different one as ambiguous."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest, values)
        if before is not values and before != values:  # nan is not equal to itself
            parser.error(
                f"{self.option_strings[0]} was given twice, as {show(before)} and as "
                f"{show(values)}: give it once"
            )
        setattr(namespace, self.dest, values)


class Switch(Once):
    """`--bias` and `--no-bias`. `FlagParser._normalized` rewrites `--bias=False` before this."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        names = [*option_strings, *("--no-" + name[2:] for name in option_strings)]
        super().__init__(names, dest, nargs=0, **options)

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        truth = not str(option_string).startswith("--no-")
        super().__call__(parser, namespace, truth, option_string)


def whole_number(text: str) -> int:
    """Parses an int, with an error that states the rule."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number") from None


def number(text: str) -> float:
    """Parses a float, with an error that states the rule."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number") from None


def which_step(text: str) -> str | int:
    """Parses `best`, `latest` or a step's number."""
    return text if text in ("best", "latest") else whole_number(text)


def one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    """An argparse type that accepts one of several words."""

    def choose(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} must be one of {', '.join(choices)}")
        return text

    return choose


def show(value: Any) -> str:
    """Formats a flag's value for messages."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
