"""The parser for the commands' options."""

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and repeat no value."""

    def __init__(self, **options: "Any") -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> "NoReturn":
        # For --flag=VALUE, argparse repeats the value.
        before, repeats_value, _ = message.partition("ignored explicit argument")
        self.exit(2, f"{self.prog}: {before}{'expected no value' if repeats_value else ''}\n")

    def parse(self, words: "Sequence[str]") -> argparse.Namespace:
        options, unknown = self.parse_known_args(words)
        if unknown:
            names = [
                word.partition("=")[0] if word.startswith("--") else word[:2]
                for word in unknown
                if word.startswith("-")
            ]
            self.error(f"unknown: {' '.join(names) or 'an argument'} (see {self.prog} --help)")
        return options
