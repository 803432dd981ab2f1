"""Start tbot, and send its own report to the Collector."""

import os

from tbot_otel.consent import OptInSampler
from tbot_otel.run import launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_EXPECTED = {"--log": "a file", "--record": "a file", "--allow-helper": "a name"}

HELP = """\
usage: tbot-otel run [OPTION ...] [--] COMMAND [ARGUMENT ...]

Replace this process with COMMAND. If that is tbot 12.1.0 or later, its report
of the start goes to the Collector that the standard OTEL_EXPORTER_OTLP_*
variables name, not to Teleport's own service. Unless
TELEPORT_ANONYMOUS_TELEMETRY opts in, COMMAND is started and nothing else
happens. To send, this needs an extra: pip install 'tbot-otel[run]'.

Examples:
  TELEPORT_ANONYMOUS_TELEMETRY=1 tbot-otel run -- tbot start -c tbot.yaml
  TELEPORT_ANONYMOUS_TELEMETRY=1 tbot-otel run --log - tbot start -c tbot.yaml

options:
  -h, --help           show this help message and exit
  --log FILE           append the outcome of the report to FILE, or with - to
                       standard error; OTEL_LOG_LEVEL sets the level (debug,
                       info, warn, error or none)
  --record FILE        append what is sent to FILE, as OTLP/JSON
  --dry-run            respond to tbot, but send nothing; --record has what
                       would be sent
  --allow-helper NAME  let the name of this helper leave, although it is not a
                       known one; repeatable

Exit status: that of COMMAND; 126 = it cannot be run; 127 = it was not found.

What happens to the report, and how long it takes:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/run.md
"""


def main(words: "Sequence[str]") -> int:
    """Parse the options without argparse, whose import takes as long as starting the interpreter.

    Args:
        words: The words after ``run``.

    Returns:
        The exit status, if COMMAND was not started.
    """
    rest = list(words)
    options = launcher.Options()
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, given, value = word.partition("=")
        if name in ("-h", "--help", "--dry-run"):
            if given:
                return _usage_error(f"{name}: expected no value")
            if name != "--dry-run":
                print(HELP, end="")
                return 0
            options.dry_run = True
            continue
        if name not in _EXPECTED:
            from tbot_otel.cli._parser import suggest

            option = name if word.startswith("--") else word[:2]
            hint = suggest([name], [*_EXPECTED, "--dry-run"])
            return _usage_error(f"unknown: {option}{hint}")
        value = value if given else rest.pop(0) if rest else ""
        if not value or (value == "--" and not given):
            return _usage_error(f"{name}: expected {_EXPECTED[name]}")
        if name == "--log":
            options.log_path = value
        elif name == "--record":
            options.record_path = value
        else:
            from tbot_otel import policy

            if not policy.is_allowable_helper(value):
                return _usage_error(f"{name}: {policy.EXPECTED_HELPER}")
            options.allowed_helpers.append(value)
    if (
        (options.dry_run or options.record_path)
        and os.environ.get(launcher.ADDRESS_VARIABLE)
        and OptInSampler().should_sample()
    ):
        return _usage_error(
            f"--record, --dry-run: expected {launcher.ADDRESS_VARIABLE} not to be set"
        )
    if not rest:
        return _usage_error("COMMAND: expected a program")
    if not hasattr(os, "fork"):
        return _usage_error("expected Linux or macOS")
    return launcher.launch(rest, options)


def _usage_error(problem: str) -> int:
    launcher.write_line(f"{problem} (see tbot-otel run --help)")
    return 2
