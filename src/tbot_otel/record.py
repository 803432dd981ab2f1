"""The record: an OpenTelemetry log record of an event, and nothing of where it was made."""

import time
from collections.abc import Mapping

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from tbot_otel import __version__, resource
from tbot_otel.events import START, StartEvent
from tbot_otel.session import Session

SCOPE_NAME = "tbot_otel"
SCOPE_VERSION = __version__

_SCOPE = InstrumentationScope(SCOPE_NAME, SCOPE_VERSION)
# A record takes the ids of the span that is active, and an empty context does not keep it from it.
_NO_SPAN = set_span_in_context(INVALID_SPAN, Context())


class EventLogRecord(LogRecord):
    """The log record of an event. Processors copy it whole, and the session with it."""

    def __init__(
        self,
        event_name: str,
        attributes: Mapping[str, str | int],
        session: Session,
        *,
        timestamp: int,
        observed_timestamp: int | None = None,
    ) -> None:
        """Make the record of an event that policy permitted.

        Args:
            event_name: The event.
            attributes: Its attributes.
            session: The start that it belongs to.
            timestamp: When it happened, in nanoseconds since 1970-01-01 UTC.
            observed_timestamp: When its record was made; now unless given.
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
        self.session = session


def of_start(event: StartEvent, session: Session) -> EventLogRecord:
    """Return the record of a start, at the time of its session."""
    return EventLogRecord(START.name, event.attributes, session, timestamp=session.started)


def readable(record: EventLogRecord, *, here: bool = True) -> ReadableLogRecord:
    """Return the record as exporters take it, under the anonymous Resource and our scope.

    Args:
        record: The record.
        here: Whether it is of this machine.
    """
    return ReadableLogRecord(record, resource.anonymous(record.session.id, here=here), _SCOPE)
