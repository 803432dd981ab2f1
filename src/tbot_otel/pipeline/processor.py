"""The processor that gates any exporter of a shared pipeline."""

from collections.abc import Collection
from typing import Any

from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord

from tbot_otel.consent import OptInSampler
from tbot_otel.pipeline.gate import Gate
from tbot_otel.registry import EVENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import Counter

    from tbot_otel.policy import Reason


class OptInLogRecordProcessor(LogRecordProcessor):
    """Passes the registry's events on, with consent and anonymized, and no other record.

    It wraps another processor, such as a `BatchLogRecordProcessor` with any exporter. Because the
    other records of the process never reach the delegate, they cannot push a start out of its
    queue. Consent is asked when a record is emitted.

    Args:
        delegate: The processor that gets the records.
        allowed_helpers: The names of helpers that may leave besides the known ones. docs/events.md
            says which names can be allowed. A name that cannot is logged and ignored.

    Attributes:
        changes: How often a value or a record did not pass as it came, by reason.
    """

    def __init__(
        self, delegate: LogRecordProcessor, *, allowed_helpers: Collection[str] = ()
    ) -> None:
        self._delegate = delegate
        self._gate = Gate(allowed_helpers)
        self.changes: Counter[Reason] = self._gate.changes

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Pass a record to the delegate as a new one, with the anonymous Resource."""
        copy = self._gate.copy(log_record, OptInSampler().should_sample())
        if copy is None:
            return
        self._delegate.on_emit(
            ReadWriteLogRecord(copy.log_record, copy.resource, copy.instrumentation_scope)
        )

    def enabled(self, *, event_name: str | None = None, **arguments: Any) -> bool:
        """Return whether a record of this event would be passed on. The newest SDKs ask."""
        if event_name not in EVENTS or not OptInSampler().should_sample():
            return False
        # SDKs before 1.45 do not ask.
        enabled = getattr(self._delegate, "enabled", None)
        return enabled is None or bool(enabled(event_name=event_name, **arguments))

    def shutdown(self) -> None:
        """Shut the delegate down."""
        self._delegate.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the delegate, for `timeout_millis` at most."""
        return self._delegate.force_flush(timeout_millis)
