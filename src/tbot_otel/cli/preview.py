"""Print the record that emit would send, and send nothing.

The record is shown as a Collector's debug exporter shows it. This needs no
consent (TELEPORT_ANONYMOUS_TELEMETRY) and no extra. Standard error lists what
policy changed or left out. The session id and the times are new at each run,
as they are in emit.

Examples:
  tbot-otel preview --config tbot.yaml
  tbot-otel preview --oneshot --tbot-version 18.3.0 --json

Everything that can be in a record:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/events.md
"""

import argparse

from tbot_otel.cli import _start_options
from tbot_otel.cli._output import write
from tbot_otel.errors import TbotOtelError
from tbot_otel.files import Replacement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk._logs import ReadableLogRecord

    from tbot_otel.cli._parser import Parser


def configure(parser: "Parser") -> None:
    """Add the options."""
    _start_options.configure(parser)
    parser.add_argument("--json", action="store_true", help="print the export as OTLP/JSON")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write to FILE instead of standard output, and replace it",
    )


def run(options: argparse.Namespace) -> int:
    """Print a start."""
    from tbot_otel.pipeline.record import PermittedRecord
    from tbot_otel.session import Start

    permitted, lines = _start_options.read(options)
    _start_options.print_lines(lines)
    record = PermittedRecord(permitted, Start())
    if options.json:
        from tbot_otel.pipeline.recording import to_json

        text = to_json([record])
    else:
        text = "\n".join(_describe(record))
    if options.output is None:
        write(text)
        return 0
    try:
        with Replacement(options.output) as output:
            output.file.write(f"{text}\n".encode())
            output.commit()
    except OSError as error:
        raise TbotOtelError(f"{options.output}: {error.strerror}") from None
    return 0


def _describe(readable: "ReadableLogRecord") -> "Iterator[str]":
    """Describe a record as the debug exporter of the official Collector does."""
    record, scope = readable.log_record, readable.instrumentation_scope
    yield from _describe_attributes("Resource attributes", readable.resource.attributes)
    if scope is not None:
        yield f"InstrumentationScope {scope.name} {scope.version}"
    yield f"Timestamp: {_utc(record.timestamp or 0)}"
    yield f"SeverityText: {record.severity_text}"
    yield f"EventName: {record.event_name}"
    yield f"Body: {_typed(record.body)}"
    yield from _describe_attributes("Attributes", record.attributes or {})


def _describe_attributes(title: str, attributes: "Mapping[str, object]") -> "Iterator[str]":
    yield f"{title}:"
    for name, value in attributes.items():
        yield f"     -> {name}: {_typed(value)}"


def _typed(value: object) -> str:
    if value is None:
        return "Empty()"
    return f"{'Int' if isinstance(value, int) else 'Str'}({value})"


def _utc(nanoseconds: int) -> str:
    from datetime import UTC, datetime

    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09} +0000 UTC"
