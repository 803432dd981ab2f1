"""The log record of an event. It carries nothing about the machine that created it."""

import time
from collections.abc import Collection, Mapping

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from tbot_otel import __version__
from tbot_otel.events import StartEvent
from tbot_otel.pipeline import resource
from tbot_otel.policy import Permitted, Refused, decide
from tbot_otel.registry import SCHEMA_URL, START
from tbot_otel.session import Session, blur_time, current

SCOPE_NAME: str = "tbot_otel"
SCOPE_VERSION: str = __version__

_SCOPE = InstrumentationScope(SCOPE_NAME, SCOPE_VERSION, SCHEMA_URL)
# Even with an empty context, a record takes the ids of the active span.
_NO_SPAN = set_span_in_context(INVALID_SPAN, Context())


class EventLogRecord(LogRecord):
    """The log record of an event. Processors copy it with its session."""

    def __init__(
        self,
        event_name: str,
        attributes: Mapping[str, str | int],
        session: Session,
        timestamp: int,
    ) -> None:
        """Create the record of an event that policy permitted.

        Args:
            event_name: The event.
            attributes: Its attributes.
            session: The start that it belongs to.
            timestamp: When it happened, as a record may have it: see `session.blur_time`.
        """
        super().__init__(
            timestamp=timestamp,
            observed_timestamp=timestamp,
            context=_NO_SPAN,
            severity_text="INFO",
            severity_number=SeverityNumber.INFO,
            attributes=attributes,
            event_name=event_name,
        )
        self.session: Session = session


def start_record(event: StartEvent, session: Session) -> EventLogRecord:
    """Return the record of a start, at the time of its session."""
    return EventLogRecord(START.name, event.attributes, session, session.started)


def to_readable(record: EventLogRecord, *, include_host: bool = True) -> ReadableLogRecord:
    """Return the record for exporters, with the anonymous Resource and this package's scope.

    Args:
        record: The record.
        include_host: Whether the Resource has ``os.type`` and ``host.arch`` of this machine.
    """
    anonymous = resource.anonymous_resource(record.session.id, include_host=include_host)
    return ReadableLogRecord(record, anonymous, _SCOPE)


def anonymize(
    record: ReadableLogRecord | ReadWriteLogRecord, allowed_helpers: Collection[str] = ()
) -> tuple[EventLogRecord | None, Permitted | Refused]:
    """Copy the part of a record that policy permits into a new one.

    Args:
        record: Any log record. It keeps its session if this process created that; otherwise it
            gets this process's session.
        allowed_helpers: See `policy.decide`.

    Returns:
        The new record, or None if it may not leave; and the policy's decision.
    """
    source = record.log_record
    decision = decide(source.event_name, source.attributes, allowed_helpers)
    if isinstance(decision, Refused):
        return None, decision
    own = session_of(record)
    time_ns = own.started if own else blur_time(_exact_time(source))
    copy = EventLogRecord(decision.event_name, decision.attributes, own or current(), time_ns)
    return copy, decision


def session_of(record: ReadableLogRecord | ReadWriteLogRecord) -> Session | None:
    """Return the session of a record, if this process created it."""
    own = getattr(record.log_record, "session", None)
    return own if isinstance(own, Session) and own.belongs_to_this_process() else None


def _exact_time(source: LogRecord) -> int:
    for value in (source.timestamp, source.observed_timestamp):
        # A time that does not fit in 64 bits would fail the whole batch.
        if isinstance(value, int) and 0 < value < 2**63:
            return value
    return time.time_ns()
