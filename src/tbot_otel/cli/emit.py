"""Send a start of tbot, and print the outcome to standard error.

Unless TELEPORT_ANONYMOUS_TELEMETRY opts in, this reads, runs and sends nothing.
It needs no extra.

Examples:
  TELEPORT_ANONYMOUS_TELEMETRY=1 tbot-otel emit --config tbot.yaml
  TELEPORT_ANONYMOUS_TELEMETRY=1 tbot-otel emit --oneshot --join-method github

Exit status: 0 = delivered, sent without an observed response, or no consent;
1 = not delivered; 2 = a usage error.

What happens if the Collector does not respond:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/reliability.md
"""

import argparse

from tbot_otel.cli import _start_options
from tbot_otel.cli._output import write_message
from tbot_otel.consent import OptInSampler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.cli._parser import Parser
    from tbot_otel.otlp.settings import Settings
    from tbot_otel.pipeline.recording import RecordFile

MAX_WAIT_SECONDS = 10.0
"""The longest wait for the Collector: the specification's default timeout of an export."""


def configure(parser: "Parser") -> None:
    """Add the options."""
    _start_options.configure(parser)
    parser.add_argument(
        "--record", metavar="FILE", help="append what is sent to FILE, as OTLP/JSON"
    )


def run(options: argparse.Namespace) -> int:
    """Send a start."""
    consent = OptInSampler().should_sample()
    if not consent:
        return _print_and_return(0, f"nothing was sent: {consent.reason}")

    from tbot_otel import sender
    from tbot_otel.errors import ExporterConfigurationError
    from tbot_otel.otlp.settings import printable_target, read_settings
    from tbot_otel.pipeline.recording import RecordingExporter
    from tbot_otel.session import Outcome, Start, Status

    permitted, lines = _start_options.read(options)
    _start_options.print_lines(lines)
    _log_to_stderr()
    file = _open_record_file(options.record)
    try:
        settings = read_settings()
    except ExporterConfigurationError as error:
        return _print_and_return(1, f"not delivered to {printable_target()}: {error}")
    wait = wait_seconds(settings)
    start = Start()
    exporter = RecordingExporter(lambda: settings, file)
    sender.submit(permitted, start, lambda: exporter)
    start.wait(wait)
    # If it is still being sent, the exit would wait for it again.
    problem = exporter.last_problem or f"no response within {wait:g} s"
    start.settle(Outcome(Status.FAILED, problem))
    line = start.outcome.describe(printable_target(settings))
    if start.outcome.status in (Status.DELIVERED, Status.UNOBSERVED):
        line = f"{line}, session {start.id}"
    return _print_and_return(int(start.outcome.status is Status.FAILED), line)


def _log_to_stderr() -> None:
    import logging

    from tbot_otel.otlp.quiet import silence_grpc

    silence_grpc()
    handler = logging.StreamHandler()
    # Other loggers can repeat variables, and that of failed exports would repeat the outcome.
    handler.addFilter(lambda record: record.name == "tbot_otel")
    logging.basicConfig(format="tbot-otel: %(message)s", handlers=[handler])


def _open_record_file(path: str | None) -> "RecordFile | None":
    """Open the file of --record. If that fails, a message says so, and the start is sent."""
    from tbot_otel import files
    from tbot_otel.pipeline.recording import RecordFile

    if path is None:
        return None
    try:
        return RecordFile(files.open_for_appending(path))
    except OSError as error:
        write_message(f"tbot-otel: --record: {error.strerror}")
        return None


def wait_seconds(settings: "Settings") -> float:
    """Return how long to wait for the Collector."""
    return min(settings.timeout_seconds, MAX_WAIT_SECONDS)


def _print_and_return(status: int, line: str) -> int:
    write_message(f"tbot-otel: {line}")
    return status
