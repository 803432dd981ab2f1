"""The log record of an event. It carries nothing about the machine that created it."""

import time
from collections.abc import Mapping

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from tbot_otel import __version__, resource
from tbot_otel.events import StartEvent
from tbot_otel.registry import START
from tbot_otel.session import Session

SCOPE_NAME: str = "tbot_otel"
SCOPE_VERSION: str = __version__

_SCOPE = InstrumentationScope(SCOPE_NAME, SCOPE_VERSION)
# Even with an empty context, a record takes the ids of the active span.
_NO_SPAN = set_span_in_context(INVALID_SPAN, Context())


class EventLogRecord(LogRecord):
    """The log record of an event. Processors copy it with its session."""

    def __init__(
        self,
        event_name: str,
        attributes: Mapping[str, str | int],
        session: Session,
        *,
        timestamp: int,
        observed_timestamp: int | None = None,
    ) -> None:
        """Create the record of an event that policy permitted.

        Args:
            event_name: The event.
            attributes: Its attributes.
            session: The start that it belongs to.
            timestamp: When it happened, in nanoseconds since 1970-01-01 UTC.
            observed_timestamp: When the record was created, in the same unit; now by default.
        """
        super().__init__(
            timestamp=timestamp,
            observed_timestamp=observed_timestamp or time.time_ns(),
            context=_NO_SPAN,
            severity_text="INFO",
            severity_number=SeverityNumber.INFO,
            attributes=attributes,
            event_name=event_name,
        )
        self.session: Session = session


def start_record(event: StartEvent, session: Session) -> EventLogRecord:
    """Return the record of a start, at the time of its session."""
    return EventLogRecord(START.name, event.attributes, session, timestamp=session.started)


def to_readable(record: EventLogRecord, *, include_host: bool = True) -> ReadableLogRecord:
    """Return the record for exporters, with the anonymous Resource and this package's scope.

    Args:
        record: The record.
        include_host: Whether the Resource has ``os.type`` and ``host.arch`` of this machine.
    """
    anonymous = resource.anonymous_resource(record.session.id, include_host=include_host)
    return ReadableLogRecord(record, anonymous, _SCOPE)
