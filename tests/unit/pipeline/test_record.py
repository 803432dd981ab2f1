"""Records of a pipeline: one id for each start, the coarse time, and the SDK's limits."""

import time
import warnings
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk._logs import (
    LoggerProvider,
    LogRecordProcessor,
    ReadableLogRecord,
    ReadWriteLogRecord,
)
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource

from support.cases import FULL_ATTRIBUTES
from support.processes import WAIT_SECONDS
from support.starts import permit
from support.times import assert_coarse
from tbot_otel import (
    OptInLogRecordProcessor,
    Reason,
    StartEvent,
    Status,
    TbotLogExporter,
    TbotResourceDetector,
    record_start,
    session,
)
from tbot_otel.pipeline.record import EventLogRecord, anonymize
from tbot_otel.session import Start

pytestmark = pytest.mark.usefixtures("opted_in")

NOW = 1_790_000_000 * 10**9
EVENT = StartEvent(run_mode="one-shot", version="18.3.0", destinations_application=3)
LIMITS = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "2",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "0",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "3",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1",
}
each_limit = pytest.mark.parametrize(("name", "value"), LIMITS.items())


class Pipeline:
    """A provider with processors in front of one of ours, or of an exporter of ours."""

    def __init__(self, *processors: LogRecordProcessor, resource: Resource | None = None) -> None:
        self.memory = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK's
        self.exporter = TbotLogExporter(self.memory)
        self.provider = LoggerProvider(resource or Resource({}), shutdown_on_exit=False)
        for processor in processors:
            self.provider.add_log_record_processor(processor)
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))

    def emit(self, **attributes: object) -> None:
        """Emit a start as any library does."""
        given: Any = FULL_ATTRIBUTES | attributes
        logger = self.provider.get_logger("another")
        logger.emit(LogRecord(event_name="tbot.start", attributes=given))

    def received(self) -> list[dict[str, object]]:
        """The attributes that arrived."""
        return [dict(each.log_record.attributes or {}) for each in self.memory.get_finished_logs()]

    def ids(self) -> list[object]:
        """The session ids that arrived."""
        return [each.resource.attributes["session.id"] for each in self.memory.get_finished_logs()]


@each_limit
def test_limits_do_not_reach_our_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start of ours arrives whole, behind a processor of ours, too."""
    monkeypatch.setenv(name, value)
    inner = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK's
    gated = OptInLogRecordProcessor(BatchLogRecordProcessor(inner))
    pipeline = Pipeline(gated)
    outcome = record_start(EVENT, logger_provider=pipeline.provider).flush(WAIT_SECONDS)
    assert outcome.status is Status.UNOBSERVED
    pipeline.provider.force_flush()
    (batched,) = inner.get_finished_logs()
    assert pipeline.received() == [EVENT.attributes] == [batched.log_record.attributes]
    pipeline.provider.shutdown()


@each_limit
def test_limited_records_of_others(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of another library that may have lost something is refused, with its reason."""
    monkeypatch.setenv(name, value)
    pipeline = Pipeline()
    with warnings.catch_warnings():
        # The SDK warns that attributes were dropped.
        warnings.simplefilter("ignore")
        pipeline.emit()
    # Older SDKs do not read this form, so nothing is lost.
    is_ignored = "LOGRECORD" in name and pipeline.received() == [FULL_ATTRIBUTES]
    assert is_ignored or pipeline.received() == []
    assert is_ignored or pipeline.exporter.changes == {Reason.CUT_BY_SDK: 1}


def test_generous_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that nothing reaches change nothing; a value that is as long as one may be cut."""
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "60")
    pipeline = Pipeline()
    pipeline.emit()
    assert pipeline.received() == [FULL_ATTRIBUTES]
    pipeline.emit(**{"tbot.helper": "x" * 60})
    assert pipeline.exporter.changes == {Reason.CUT_BY_SDK: 1}


class Redacting(LogRecordProcessor):
    """A processor of the user's own that changes attributes in one of the possible ways."""

    def __init__(self, way: str) -> None:
        self._way = way

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Change them."""
        record: Any = log_record.log_record
        redacted = {**record.attributes, "tbot.version": "12.0.0"}
        del redacted["tbot.destinations_application"]
        if self._way == "replace":
            record.attributes = redacted
        elif self._way == "replace with the SDK's class":
            record.attributes = BoundedAttributes(9, redacted, immutable=False, max_value_len=50)
        else:
            record.attributes["tbot.version"] = "12.0.0"
            del record.attributes["tbot.destinations_application"]

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing."""
        return bool(timeout_millis)


@pytest.mark.parametrize("limit", ["", "50", "3"])
@pytest.mark.parametrize("way", ["replace", "replace with the SDK's class", "in place"])
def test_redaction_is_kept(way: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's own processor removed from our start is not restored, whatever the limits."""
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", limit)
    pipeline = Pipeline(Redacting(way))
    record_start(EVENT, logger_provider=pipeline.provider).flush(WAIT_SECONDS)
    (received,) = pipeline.received()
    assert (received["tbot.version"], received["tbot.destinations_application"]) == ("12.0.0", 0)


def test_one_id_for_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record has one id in every exporter, and two records have two; the first is the detector's.

    The batch processor of newer SDKs copies the record.
    """
    monkeypatch.setattr(session, "_offered", None)
    monkeypatch.setattr(session, "_untaken", [])
    detected = TbotResourceDetector().detect()
    inner = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK's
    batch = BatchLogRecordProcessor(TbotLogExporter(inner))
    pipeline = Pipeline(batch, resource=detected)
    for _ in range(4):
        pipeline.emit()
    pipeline.provider.force_flush()
    ids = pipeline.ids()
    pipeline.provider.shutdown()
    assert ids == [each.resource.attributes["session.id"] for each in inner.get_finished_logs()]
    assert len({*ids}) == 4
    assert ids[0] == detected.attributes["session.id"]


@pytest.mark.parametrize(
    "times",
    [
        {"timestamp": NOW},
        {"timestamp": NOW, "observed_timestamp": NOW + 7 * 10**12},
        {"timestamp": None, "observed_timestamp": NOW},
        # Times that do not fit in 64 bits, or are none.
        {"timestamp": 2**63, "observed_timestamp": NOW},
        {"timestamp": 0, "observed_timestamp": NOW},
    ],
)
def test_time_of_another_library(times: dict[str, int | None]) -> None:
    """A record of another library leaves without its exact time."""
    left = []
    for _ in range(50):
        record = LogRecord(event_name="tbot.start", **times)  # type: ignore[arg-type]
        copy, _ = anonymize(ReadableLogRecord(record, Resource.get_empty()))
        assert copy is not None
        assert copy.log_record.observed_timestamp == copy.log_record.timestamp
        left.append(copy.log_record.timestamp or 0)
    assert_coarse(left, NOW, NOW)


def test_no_time() -> None:
    """A record without a time gets that of its copy, and not the exact one."""
    before = time.time_ns()
    left = []
    for _ in range(50):
        record = LogRecord(event_name="tbot.start", timestamp=0, observed_timestamp=2**63)
        copy, _ = anonymize(ReadableLogRecord(record, Resource.get_empty()))
        assert copy is not None
        left.append(copy.log_record.timestamp or 0)
    assert_coarse(left, before, time.time_ns())


def test_another_type_is_refused() -> None:
    """Only what policy permitted becomes a record: a type checker refuses anything else."""
    with pytest.raises(AttributeError):
        EventLogRecord({"tbot.version": "web01"}, Start())  # type: ignore[arg-type]  # the test
    assert EventLogRecord(permit({}), Start()).event_name == "tbot.start"
