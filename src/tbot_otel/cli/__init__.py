"""The command line: a module a command, each imported only when it is asked for.

A command's module has `configure(parser)`, which adds its options, and `run(options)`, which
returns its exit status. What it raises for a person's mistake ends with status 2 and one line.
`run` is on the way of every start of tbot: it has a `main(words)`, and is spared the parser.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "events": "print every event and attribute that can ever be collected",
    "status": "say whether anything would be sent, where to, and what looks wrong",
    "preview": "print exactly what emit would send, and send nothing",
    "emit": "send a start of tbot, and say what came of it",
    "run": "start tbot, and hand its own report over to the Collector",
    "relay": "take the reports of many tbots, and hand them over to the Collector",
}


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
    if words[:1] == ["run"]:
        import _signal

        # Whoever stops it before it is tbot, stops tbot.
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        from tbot_otel.cli import run

        return run.main(words[1:])

    import argparse
    import os
    from importlib import import_module

    from tbot_otel import __version__
    from tbot_otel.cli._parser import Parser
    from tbot_otel.errors import TbotOtelError

    parser = Parser(
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
    parser = Parser(prog=f"tbot-otel {name}", description=command.__doc__)
    command.configure(parser)
    try:
        status = int(command.run(parser.parse(words[1:])))
        print(end="", flush=True)
    except TbotOtelError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads has seen enough. The interpreter would try to write the rest as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return status
