"""The command line: one module per command, imported only when that command is run.

A command's module has `configure(parser)`, which adds its options, and `run(options)`, which
returns the exit status. A `TbotOtelError` is a usage error: status 2 and one line. Every start of
tbot waits for `run`, so its module has `main(words)` and does without the parser.
"""

import _signal
import sys

# Until exec, SIGINT must kill `run` as it would tbot. It can arrive during the next import.
if sys.argv[1:2] == ["run"] and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GROUPS = {
    "see what would be sent": {
        "events": "print every event and attribute that can ever be collected",
        "preview": "print the record that emit would send, and send nothing",
        "status": "print whether a start would be sent, where to, and likely mistakes",
    },
    "send starts": {
        "run": "start tbot, and send its own report to the Collector",
        "emit": "send a start of tbot, and print the outcome",
        "relay": "receive the reports of many tbots, and send them to the Collector",
    },
    "see what was collected": {
        "report": "count the starts in a Collector's files, and print a report",
    },
    "other": {
        "completion": "print the completion script of a shell",
    },
}
COMMANDS = {name: brief for group in GROUPS.values() for name, brief in group.items()}


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run a command.

    Args:
        argv: The words after the program's name; this process's own by default.

    Returns:
        The command's exit status.

    Raises:
        SystemExit: A usage error: status 2, after one line on standard error.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["run"]:
        from tbot_otel.cli import run

        return run.main(words[1:])

    import argparse
    import io

    from tbot_otel import __version__
    from tbot_otel.cli._parser import Parser, suggest

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A variable or a path can have characters that cannot be encoded.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = Parser(
        prog="tbot-otel",
        usage="%(prog)s COMMAND [OPTION ...]",
        description=_describe_commands(),
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    if not words:
        parser.print_help()
        return 0
    name = parser.parse(words[:1]).command or ""
    if name not in COMMANDS:
        hint = suggest([name], COMMANDS)
        parser.error(f"COMMAND: expected one of {', '.join(COMMANDS)}{hint}")
    return _run(name, words[1:])


def _run(name: str, words: "Sequence[str]") -> int:
    """Run a command, and return its exit status. A usage error exits."""
    from importlib import import_module

    from tbot_otel.cli._output import EXIT_BROKEN_PIPE
    from tbot_otel.cli._parser import Parser
    from tbot_otel.errors import TbotOtelError
    from tbot_otel.streams import discard

    command = import_module(f"tbot_otel.cli.{name}")
    parser = Parser(prog=f"tbot-otel {name}", description=command.__doc__)
    command.configure(parser)
    try:
        return int(command.run(parser.parse(words)))
    except TbotOtelError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # report writes to standard output itself.
        discard(1)
        return EXIT_BROKEN_PIPE


_EPILOG = """\
Consent: without TELEPORT_ANONYMOUS_TELEMETRY=1, nothing is sent. (relay relies
on the consent of the tbots that report to it.)

Start with `tbot-otel preview`. `tbot-otel COMMAND --help` explains a command.
Documentation: https://github.com/tbot-otel/tbot-otel
"""


def _describe_commands() -> str:
    lines = [
        "tbot-otel sends the anonymous, opt-in telemetry of tbot, Teleport's Machine ID",
        "agent, to your own OpenTelemetry Collector.",
    ]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10}  {text}" for name, text in commands.items())]
    return "\n".join(lines)
