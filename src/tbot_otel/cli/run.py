"""Start tbot, and hand the report of its start over to the Collector."""

import os

from tbot_otel import launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = """\
usage: tbot-otel run [--log FILE] [--] COMMAND [ARGUMENT ...]

Start COMMAND in place of this process. If it is a tbot that reports its start (12.1.0 and later),
that goes to the Collector that the standard OTEL_EXPORTER_OTLP_* variables name, in place of
Teleport's own service. Without consent, COMMAND is started, and nothing else is done.

options:
  -h, --help  show this help message and exit
  --log FILE  append to FILE what becomes of the report; OTEL_LOG_LEVEL has the level (info, warn)

Exit status: that of COMMAND; 126 = it cannot be run; 127 = it is not found.
"""


def main(words: "Sequence[str]") -> int:
    """Run the command, without argparse: it takes as long as starting the interpreter.

    Args:
        words: The words behind ``run``.

    Returns:
        The exit status, if COMMAND was not started.
    """
    rest = list(words)
    log = None
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, given, value = word.partition("=")
        if word in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if name != "--log":
            return _wrong(f"unknown: {name if word.startswith('--') else word[:2]}")
        log = value if given else rest.pop(0) if rest else ""
        if not log or (log == "--" and not given):
            return _wrong("--log: expected a file")
    if not rest:
        return _wrong("COMMAND: expected a program")
    if not hasattr(os, "fork"):
        return _wrong("expected Linux or macOS")
    return launcher.launch(rest, log)


def _wrong(problem: str) -> int:
    launcher.say(f"{problem} (see tbot-otel run --help)")
    return 2
