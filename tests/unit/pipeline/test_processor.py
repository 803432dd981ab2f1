"""OptInLogRecordProcessor: the gate of a shared pipeline. One start has one id and one time."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource

from support.cases import FULL_ATTRIBUTES, FULL_FIELDS, OTHER
from support.otlp import expected_resource
from support.processes import WAIT_SECONDS, wait_until
from tbot_otel import (
    OptInLogRecordProcessor,
    StartEvent,
    Status,
    TbotLogExporter,
    TbotResourceDetector,
    record_start,
)
from tbot_otel.registry import SCHEMA_URL

pytestmark = pytest.mark.usefixtures("opted_in")

EVENT = StartEvent(**FULL_FIELDS)
SECRET = "s3cret"
HELPER = "acme-deploy"
# The SDK's constructor has no types.
make_in_memory_exporter: Callable[[], InMemoryLogRecordExporter] = InMemoryLogRecordExporter


def make_provider(*processors: LogRecordProcessor, **resource: str) -> LoggerProvider:
    """A pipeline with a Resource that identifies."""
    provider = LoggerProvider(Resource({"host.name": SECRET, **resource}), shutdown_on_exit=False)
    for processor in processors:
        provider.add_log_record_processor(processor)
    return provider


def session_id(record: ReadableLogRecord) -> object:
    """The session id in a record's Resource."""
    return record.resource.attributes["session.id"]


def test_record() -> None:
    """The delegate gets a new record with the anonymous Resource and the coarse time."""
    inner = make_in_memory_exporter()
    provider = make_provider(OptInLogRecordProcessor(SimpleLogRecordProcessor(inner)))
    session = record_start(EVENT, logger_provider=provider)
    assert session.flush(WAIT_SECONDS).status is Status.HANDED_OVER
    (record,) = inner.get_finished_logs()
    assert record.resource.attributes == expected_resource(session.id)
    assert record.resource.schema_url == SCHEMA_URL
    scope = record.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("tbot_otel", SCHEMA_URL)
    assert record.log_record.attributes == FULL_ATTRIBUTES
    assert record.log_record.timestamp == session._start.time
    assert record.log_record.observed_timestamp == session._start.time


def test_event_of_another_library() -> None:
    """An event that other code emits passes as policy permits it, without its exact time."""
    inner = make_in_memory_exporter()
    processor = OptInLogRecordProcessor(SimpleLogRecordProcessor(inner))
    now = 1_790_000_000 * 10**9
    make_provider(processor).get_logger(SECRET).emit(
        LogRecord(
            timestamp=now,
            event_name="tbot.start",
            body=SECRET,
            attributes={"tbot.run_mode": "daemon", "tbot.helper": SECRET, SECRET: SECRET},
        )
    )
    (record,) = inner.get_finished_logs()
    assert SECRET not in record.to_json()
    assert record.log_record.timestamp is not None
    assert now - 60 * 10**9 < record.log_record.timestamp <= now
    assert record.log_record.observed_timestamp == record.log_record.timestamp


def test_other_records_do_not_reach_the_queue() -> None:
    """In a pipeline that logs heavily, no start is pushed out of the delegate's queue."""
    inner = make_in_memory_exporter()
    batch = BatchLogRecordProcessor(inner, max_queue_size=64, max_export_batch_size=64)
    provider = make_provider(OptInLogRecordProcessor(batch))
    logger = provider.get_logger("busy")
    threads = [
        threading.Thread(target=lambda: [logger.emit(LogRecord(body=SECRET)) for _ in range(2000)])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    sessions = [record_start(EVENT, logger_provider=provider) for _ in range(20)]
    for thread in threads:
        thread.join()
    for session in sessions:
        assert session.flush(WAIT_SECONDS).status is Status.HANDED_OVER
    provider.shutdown()
    assert sorted(map(str, map(session_id, inner.get_finished_logs()))) == sorted(
        session.id for session in sessions
    )


def test_without_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without consent at emission, nothing reaches the delegate."""
    inner = make_in_memory_exporter()
    provider = make_provider(OptInLogRecordProcessor(SimpleLogRecordProcessor(inner)))
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "0")
    provider.get_logger("x").emit(LogRecord(event_name="tbot.start"))
    assert inner.get_finished_logs() == ()


class EnabledProcessor(SimpleLogRecordProcessor):
    """A processor that says whether it is enabled, and records what it was asked."""

    def __init__(self, *, is_enabled: bool) -> None:
        super().__init__(make_in_memory_exporter())
        self.is_enabled = is_enabled
        self.asked: list[dict[str, Any]] = []

    def enabled(self, **arguments: Any) -> bool:
        """Return whether it is enabled."""
        self.asked.append(arguments)
        return self.is_enabled


def test_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only our events are enabled, with consent, and if the delegate is."""
    delegate = EnabledProcessor(is_enabled=True)
    processor = OptInLogRecordProcessor(delegate)
    arguments = {"context": None, "instrumentation_scope": None, "severity_number": None}
    assert processor.enabled(event_name="tbot.start", **arguments)
    assert delegate.asked == [{"event_name": "tbot.start", **arguments}]
    assert not processor.enabled(event_name="tbot.stop", **arguments)
    assert not processor.enabled(**arguments)
    assert not OptInLogRecordProcessor(EnabledProcessor(is_enabled=False)).enabled(
        event_name="tbot.start"
    )
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert not processor.enabled(event_name="tbot.start", **arguments)


@pytest.mark.parametrize("is_flushed", [True, False])
def test_flush_timeout(is_flushed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush takes the delegate as long as it may, and the delegate's result is returned."""
    delegate = SimpleLogRecordProcessor(make_in_memory_exporter())
    asked: list[int] = []

    def force_flush(timeout_millis: int = 1) -> bool:
        asked.append(timeout_millis)
        return is_flushed

    monkeypatch.setattr(delegate, "force_flush", force_flush)
    processor = OptInLogRecordProcessor(delegate)
    assert [processor.force_flush(7), processor.force_flush()] == [is_flushed] * 2
    assert asked == [7, 30_000]


def test_delegate_is_flushed_and_shut_down() -> None:
    """A flush and a shutdown reach the delegate."""
    inner = make_in_memory_exporter()
    processor = OptInLogRecordProcessor(
        BatchLogRecordProcessor(inner, schedule_delay_millis=3_600_000)
    )
    make_provider(processor).get_logger("x").emit(LogRecord(event_name="tbot.start"))
    assert processor.force_flush(int(WAIT_SECONDS * 1000))
    assert len(inner.get_finished_logs()) == 1
    processor.shutdown()
    assert inner._stopped


@pytest.mark.parametrize("allowed", [[], [HELPER], ["another", HELPER], {HELPER}, (HELPER,)])
@pytest.mark.parametrize("gate", ["processor", "exporter"])
def test_allowed_helpers(gate: str, allowed: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A helper that is not known leaves only if the owner of the pipeline allows it."""
    inner = make_in_memory_exporter()
    processor: LogRecordProcessor
    if gate == "processor":
        processor = OptInLogRecordProcessor(
            SimpleLogRecordProcessor(inner), allowed_helpers=allowed
        )
    else:
        processor = SimpleLogRecordProcessor(TbotLogExporter(inner, allowed_helpers=allowed))
    event = StartEvent(**FULL_FIELDS | {"helper": HELPER})
    record_start(event, logger_provider=make_provider(processor)).flush(WAIT_SECONDS)
    (record,) = inner.get_finished_logs()
    assert record.log_record.attributes is not None
    is_allowed = HELPER in allowed
    assert record.log_record.attributes["tbot.helper"] == (HELPER if is_allowed else OTHER)
    assert ("tbot.helper_version" in record.log_record.attributes) is is_allowed
    assert caplog.messages == []


@pytest.mark.parametrize(
    "allowed",
    [
        *(f"{SECRET}.example.com", 3, None, [None], [f"{SECRET}.example.com"], [[]], HELPER),
        # Each letter could be the name of a helper.
        "abc",
    ],
)
def test_invalid_allowed_helpers(allowed: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A name that cannot be allowed is one log line without the name, and changes nothing else."""
    exporter = TbotLogExporter(make_in_memory_exporter(), allowed_helpers=allowed)
    (message,) = caplog.messages
    assert message == (
        "allowed_helpers: expected a name of letters, digits, - _ / and one :, at most 64; "
        "others are ignored"
    )
    provider = make_provider(SimpleLogRecordProcessor(exporter))
    session = record_start(EVENT, logger_provider=provider)
    assert session.flush(WAIT_SECONDS).status is not Status.FAILED


def test_one_session_id_in_every_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start has the id of the pipeline's Resource, and each further start its own."""
    monkeypatch.setattr("tbot_otel.session._offered", None)
    monkeypatch.setattr("tbot_otel.session._untaken", [])
    exporters = [make_in_memory_exporter() for _ in range(3)]
    provider = LoggerProvider(
        Resource({"service.name": "app"}).merge(TbotResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporters[0]))
    provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter(exporters[1])))
    gated = OptInLogRecordProcessor(SimpleLogRecordProcessor(exporters[2]))
    provider.add_log_record_processor(gated)
    # Other Resources of the process, and other pipelines.
    TbotResourceDetector().detect()
    sessions = []
    for _ in range(3):
        sessions.append(record_start(EVENT, logger_provider=provider))
        sessions[-1].flush(WAIT_SECONDS)
    # The exporter sets an outcome before the processor after it has the record.
    wait_until(lambda: all(len(each.get_finished_logs()) == 3 for each in exporters))
    ids = {session.id for session in sessions}
    plain, *anonymous = [[*map(session_id, each.get_finished_logs())] for each in exporters]
    assert plain == [sessions[0].id] * 3
    assert [{*each} for each in anonymous] == [ids] * 2
    assert len(ids) == 3


def test_session_without_detector() -> None:
    """Without the detector, each start has an id of its own."""
    inner = make_in_memory_exporter()
    provider = make_provider(OptInLogRecordProcessor(SimpleLogRecordProcessor(inner)))
    for _ in range(2):
        record_start(EVENT, logger_provider=provider).flush(WAIT_SECONDS)
    first, second = map(session_id, inner.get_finished_logs())
    assert first != second
