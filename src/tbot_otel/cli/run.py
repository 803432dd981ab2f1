"""Start tbot, and send its own report to the Collector."""

import os

from tbot_otel.run import launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = """\
usage: tbot-otel run [--log FILE] [--] COMMAND [ARGUMENT ...]

Replace this process with COMMAND. If that is tbot 12.1.0 or later, its report of the start goes to
the Collector that the standard OTEL_EXPORTER_OTLP_* variables name, not to Teleport's own service.
Without consent, COMMAND is started and nothing else happens.

options:
  -h, --help  show this help message and exit
  --log FILE  append the outcome of the report to FILE; OTEL_LOG_LEVEL sets the level (info, warn)

Exit status: that of COMMAND; 126 = it cannot be run; 127 = it was not found.
"""


def main(words: "Sequence[str]") -> int:
    """Parse the options without argparse, whose import takes as long as starting the interpreter.

    Args:
        words: The words after ``run``.

    Returns:
        The exit status, if COMMAND was not started.
    """
    rest = list(words)
    log_path = None
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, given, value = word.partition("=")
        if word in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if name != "--log":
            return _usage_error(f"unknown: {name if word.startswith('--') else word[:2]}")
        log_path = value if given else rest.pop(0) if rest else ""
        if not log_path or (log_path == "--" and not given):
            return _usage_error("--log: expected a file")
    if not rest:
        return _usage_error("COMMAND: expected a program")
    if not hasattr(os, "fork"):
        return _usage_error("expected Linux or macOS")
    return launcher.launch(rest, log_path)


def _usage_error(problem: str) -> int:
    launcher.write_line(f"{problem} (see tbot-otel run --help)")
    return 2
