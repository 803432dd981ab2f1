"""The command line: a module a command, each imported only when it is asked for.

A command's module has `configure(parser)`, which adds its options, and `run(options)`, which
returns its exit status. What it raises for a person's mistake ends with status 2 and one line.
"""

import argparse
import sys
from importlib import import_module

from tbot_otel import __version__
from tbot_otel.errors import TbotOtelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

COMMANDS = {
    "events": "print every event and attribute that can ever be collected",
    "status": "say whether anything would be sent, where to, and what looks wrong",
    "preview": "print exactly what emit would send, and send nothing",
    "emit": "send a start of tbot, and say what came of it",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and repeat no value."""

    def __init__(self, **options: "Any") -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> "NoReturn":
        # argparse repeats what is glued to an option that takes no value.
        before, ignored, _ = message.partition("ignored explicit argument")
        self.exit(2, f"{self.prog}: {before}{'expected no value' if ignored else ''}\n")

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


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run a command.

    Args:
        argv: The words behind the program's name; this process's own unless given.

    Returns:
        The command's exit status.

    Raises:
        SystemExit: With status 2, after one line on standard error: the words were wrong.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _Parser(
        prog="tbot-otel",
        usage="%(prog)s COMMAND [OPTION ...]",
        description="Anonymous, opt-in telemetry of tbot, over OpenTelemetry.",
        epilog="\n".join(
            ["commands:", *(f"  {name:<9} {brief}" for name, brief in COMMANDS.items())]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    name = parser.parse(words[:1]).command
    if name not in COMMANDS:
        parser.error(f"COMMAND: expected one of {', '.join(COMMANDS)}")
    command = import_module(f"tbot_otel.cli.{name}")
    parser = _Parser(prog=f"tbot-otel {name}", description=command.__doc__)
    command.configure(parser)
    try:
        return int(command.run(parser.parse(words[1:])))
    except TbotOtelError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
