"""Start tbot, and send its own report to the Collector."""

import os

from tbot_otel.consent import OptInSampler
from tbot_otel.errors import TbotOtelError
from tbot_otel.run import launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = {
    "--log": (
        "FILE",
        (
            "append the outcome of the report to FILE, or with - to standard error; "
            "OTEL_LOG_LEVEL sets the level (debug, info, warn, error or none)"
        ),
    ),
    "--record": ("FILE", "append what is sent to FILE, as OTLP/JSON"),
    "--dry-run": ("", "respond to tbot, but send nothing; --record has what would be sent"),
    "--allow-helper": (
        "NAME",
        "let the name of this helper leave, although it is not a known one; repeatable",
    ),
}
"""The options, each with the name of its value, if it has one, and its help."""

_EXPECTED = {"FILE": "a file", "NAME": "a name"}
_HELP = """\
usage: tbot-otel run [OPTION ...] [--] COMMAND [ARGUMENT ...]

Replace this process with COMMAND. If that is tbot 12.1.0 or later, its report
of the start goes to the Collector that the standard OTEL_EXPORTER_OTLP_*
variables name, not to Teleport's own service. Unless
TELEPORT_ANONYMOUS_TELEMETRY opts in, COMMAND is started and nothing else
happens. To send, this needs the extra: pip install 'tbot-otel[run]'.

Examples:
  TELEPORT_ANONYMOUS_TELEMETRY=1 tbot-otel run -- tbot start -c tbot.yaml
  TELEPORT_ANONYMOUS_TELEMETRY=1 tbot-otel run --log - tbot start -c tbot.yaml

options:
  -h, --help           show this help message and exit
{options}
Exit status: that of COMMAND; 126 = it cannot be run; 127 = it was not found.

What happens to the report, and how long it takes:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/run.md
"""


def main(words: "Sequence[str]") -> int:
    """Start COMMAND in place of this process.

    Args:
        words: The words after ``run``.

    Returns:
        The exit status, if COMMAND was not started.
    """
    try:
        options, command = _parse(words)
        if command is None:
            from tbot_otel.cli._output import write

            write(_help(), end="")
            return 0
        _check(options, command)
    except TbotOtelError as error:
        launcher.write_line(f"{error} (see tbot-otel run --help)")
        return launcher.EXIT_USAGE
    return launcher.launch(command, options)


def _parse(words: "Sequence[str]") -> "tuple[launcher.Options, list[str] | None]":
    """Parse the options without argparse, whose import takes as long as starting the interpreter.

    Returns:
        The options, and COMMAND with its arguments; None if the help is asked for.
    """
    rest = list(words)
    options = launcher.Options()
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, given, value = word.partition("=")
        is_help = name in ("-h", "--help")
        if not is_help and name not in OPTIONS:
            from tbot_otel.cli._parser import suggest

            unknown = name if word.startswith("--") else word[:2]
            raise TbotOtelError(f"unknown: {unknown}{suggest([name], OPTIONS)}")
        metavar = "" if is_help else OPTIONS[name][0]
        if given and not metavar:
            raise TbotOtelError(f"{name}: expected no value")
        if is_help:
            return options, None
        if metavar:
            value = value if given else rest.pop(0) if rest else ""
            if not value or (value == "--" and not given):
                raise TbotOtelError(f"{name}: expected {_EXPECTED[metavar]}")
        _set(options, name, value)
    return options, rest


def _set(options: launcher.Options, name: str, value: str) -> None:
    if name == "--dry-run":
        options.dry_run = True
    elif name == "--log":
        options.log_path = value
    elif name == "--record":
        options.record_path = value
    else:
        from tbot_otel import policy

        if not policy.is_allowable_helper(value):
            raise TbotOtelError(f"{name}: {policy.EXPECTED_HELPER}")
        options.allowed_helpers.append(value)


def _check(options: launcher.Options, command: list[str]) -> None:
    if (
        (options.dry_run or options.record_path)
        and os.environ.get(launcher.ADDRESS_VARIABLE)
        and OptInSampler().should_sample()
    ):
        problem = f"expected {launcher.ADDRESS_VARIABLE} not to be set"
        raise TbotOtelError(f"--record, --dry-run: {problem}")
    if not command:
        raise TbotOtelError("COMMAND: expected a program")
    if not hasattr(os, "fork"):
        raise TbotOtelError("expected Linux or macOS")


def _help() -> str:
    from textwrap import fill

    options = ""
    for name, (metavar, text) in OPTIONS.items():
        first = f"  {name} {metavar}".ljust(23)
        options += fill(text, 79, initial_indent=first, subsequent_indent=" " * 23) + "\n"
    return _HELP.format(options=options)
