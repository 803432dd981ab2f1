"""The parser for the commands' options."""

import argparse
import re

from tbot_otel.errors import TbotOtelError
from tbot_otel.policy import EXPECTED_HELPER, is_allowable_helper
from tbot_otel.streams import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn


class OptionError(TbotOtelError):
    """An option is invalid."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and repeat no value."""

    def __init__(self, **options: "Any") -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> "NoReturn":
        # For --flag=VALUE, argparse repeats the value.
        before, repeats_value, _ = message.partition("ignored explicit argument")
        line = f"{before}{'expected no value' if repeats_value else ''}"
        self.exit(2, f"{self.prog}: {printable(line)}\n")

    def add_allow_helper(self) -> None:
        """Add the option that allows more helpers."""
        self.add_argument(
            "--allow-helper",
            dest="allowed_helpers",
            action="append",
            default=[],
            type=_parse_helper,
            metavar="NAME",
            help="let the name of this helper leave, although it is not a known one; repeatable",
        )

    def parse(self, words: "Sequence[str]") -> argparse.Namespace:
        """Parse words. An unknown one is a usage error that suggests a known one."""
        options, unknown = self.parse_known_args(words)
        if unknown:
            names = [
                word.partition("=")[0] if word.startswith("--") else word[:2]
                for word in unknown
                if word.startswith("-")
            ]
            hint = suggest(names, self._option_string_actions)
            names = names or ["an argument"]
            self.error(f"unknown: {' '.join(names)}{hint} (see {self.prog} --help)")
        return options


def number_up_to(maximum: int) -> "Callable[[str], int]":
    """Return the type of an option that is a number from 1 to a maximum of at most 9 digits."""

    def parse(text: str) -> int:
        number = int(text) if re.fullmatch("[1-9][0-9]{0,8}", text) else 0
        if not 0 < number <= maximum:
            raise argparse.ArgumentTypeError(f"expected a number from 1 to {maximum}")
        return number

    return parse


def suggest(words: "Iterable[str]", known: "Iterable[str]") -> str:
    """Return a question with the known words that are close to mistyped ones, or nothing."""
    from difflib import get_close_matches

    known = list(known)
    matches = [match for word in words for match in get_close_matches(word.lower(), known, n=1)]
    return f"; did you mean {' '.join(matches)}?" if matches else ""


def _parse_helper(name: str) -> str:
    if not is_allowable_helper(name):
        raise argparse.ArgumentTypeError(EXPECTED_HELPER)
    return name
