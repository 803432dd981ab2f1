"""The log record of an event. It carries nothing about the machine that created it."""

import time
from collections.abc import Collection, Mapping
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from tbot_otel import __version__
from tbot_otel.pipeline.resource import anonymous_resource
from tbot_otel.policy import Permitted, Reason, Refused, decide
from tbot_otel.registry import EVENTS, SCHEMA_URL
from tbot_otel.session import Start, blur_time, start_in_pipeline

SCOPE_NAME: str = "tbot_otel"
SCOPE_VERSION: str = __version__

_SCOPE = InstrumentationScope(SCOPE_NAME, SCOPE_VERSION, SCHEMA_URL)
# Even with an empty context, a record takes the ids of the active span.
_NO_SPAN = set_span_in_context(INVALID_SPAN, Context())
_START = "_tbot_otel_start"


class EventLogRecord(LogRecord):
    """The log record of an event. Processors copy it with its start.

    Args:
        permitted: What policy permitted.
        start: The start that it belongs to.
    """

    def __init__(self, permitted: Permitted, start: Start) -> None:
        super().__init__(
            timestamp=start.time,
            observed_timestamp=start.time,
            context=_NO_SPAN,
            severity_text="INFO",
            severity_number=SeverityNumber.INFO,
            attributes=permitted.attributes,
            event_name=permitted.event_name,
        )
        setattr(self, _START, start)

    _attributes: Mapping[str, object] = {}

    @property
    def attributes(self) -> Any:
        """The attributes."""
        return self._attributes

    @attributes.setter
    def attributes(self, value: Any) -> None:
        # The SDK replaces them with a copy within its limits. A count that it drops would be 0.
        if not (isinstance(value, BoundedAttributes) and _is_limited_copy(value, self._attributes)):
            self._attributes = value


class PermittedRecord(ReadableLogRecord):
    """A record that may be sent, with the anonymous Resource and this package's scope.

    Args:
        permitted: What policy permitted.
        start: The start that it belongs to.
        include_host: Whether the Resource has ``os.type`` and ``host.arch`` of this machine.
    """

    def __init__(self, permitted: Permitted, start: Start, *, include_host: bool = True) -> None:
        resource = anonymous_resource(start.id, include_host=include_host)
        super().__init__(EventLogRecord(permitted, start), resource, _SCOPE)


def anonymize(
    record: ReadableLogRecord | ReadWriteLogRecord, allowed_helpers: Collection[str] = ()
) -> tuple[PermittedRecord | None, Permitted | Refused]:
    """Copy the part of a record that policy permits into a new one.

    Args:
        record: Any log record.
        allowed_helpers: See `policy.decide`.

    Returns:
        The new record, or None if it may not leave; and the policy's decision.
    """
    source = record.log_record
    decision = decide(source.event_name, source.attributes, allowed_helpers)
    if isinstance(decision, Permitted) and _may_be_cut(source):
        decision = Refused(Reason.CUT_BY_SDK)
    if isinstance(decision, Refused):
        return None, decision
    start = start_of(record)
    if start is None:
        start = start_in_pipeline(blur_time(_exact_time(source)))
        setattr(_carrier(source), _START, start)
    return PermittedRecord(decision, start), decision


def start_of(record: ReadableLogRecord | ReadWriteLogRecord) -> Start | None:
    """Return the start of a record that this process has seen before."""
    start = getattr(_carrier(record.log_record), _START, None)
    return start if isinstance(start, Start) and start.belongs_to_this_process() else None


def _carrier(source: LogRecord) -> object:
    """Return what all copies of a record share: newer SDKs copy the record for each processor."""
    shared = source.attributes
    is_foreign = isinstance(shared, BoundedAttributes) and not isinstance(source, EventLogRecord)
    return shared if is_foreign else source


def _may_be_cut(source: LogRecord) -> bool:
    """Return whether a limit of the SDK may have dropped or cut an attribute.

    The SDK tells how many it dropped. A value that it cut is as long as the limit.
    """
    attributes = source.attributes
    if not isinstance(attributes, BoundedAttributes):
        return False
    ours = EVENTS[str(source.event_name)].attributes
    return bool(attributes.dropped) or any(
        isinstance(value := attributes.get(item.name), str)
        and len(value) == attributes.max_value_len
        for item in ours
    )


def _is_limited_copy(copy: BoundedAttributes, original: Mapping[str, object]) -> bool:
    """Return whether limits alone can have made a copy, and not a user's redaction."""
    return len(copy) + copy.dropped == len(original) and all(
        value == original.get(name)
        or (
            str(original.get(name)).startswith(str(value)) and len(str(value)) == copy.max_value_len
        )
        for name, value in copy.items()
    )


def _exact_time(source: LogRecord) -> int:
    for value in (source.timestamp, source.observed_timestamp):
        # A time that does not fit in 64 bits would fail the whole batch.
        if isinstance(value, int) and 0 < value < 2**63:
            return value
    return time.time_ns()
