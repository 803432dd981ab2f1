"""The plugin in pipelines as people configure them: by variables, by a file and by hand."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import requests
from opentelemetry._logs import LogRecord
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk._logs import (
    LoggerProvider,
    LoggingHandler,
    LogRecordProcessor,
    ReadableLogRecord,
    ReadWriteLogRecord,
)
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    LogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource, ResourceDetector
from opentelemetry.sdk.trace import TracerProvider

from collectors import PATIENCE, Answer, Rotel, Standin, run
from tbot_otel import (
    StartEvent,
    Status,
    TbotLogExporter,
    TbotResourceDetector,
    record_start,
    session,
)
from test_faults import received
from test_protocols import resource_of, standin, tapped

EVENT = StartEvent(run_mode="daemon", version="18.3.0")
SECRET = "s3cret"
# The SDK gives no types to its constructor.
in_memory: Callable[[], InMemoryLogRecordExporter] = InMemoryLogRecordExporter
PROCESSORS = {"simple": SimpleLogRecordProcessor, "batch": BatchLogRecordProcessor}


@pytest.mark.parametrize(
    ("group", "base", "ours"),
    [
        ("opentelemetry_logs_exporter", LogRecordExporter, TbotLogExporter),
        ("opentelemetry_resource_detector", ResourceDetector, TbotResourceDetector),
    ],
)
def test_entry_points(group: str, base: type, ours: type) -> None:
    """Each entry point loads ours, which is of the kind that is asked for there."""
    (point,) = entry_points(group=group, name="tbot")
    assert point.load() is ours
    assert issubclass(ours, base)


class Way(NamedTuple):
    """A way to configure a pipeline."""

    protocol: str
    environ: dict[str, str]
    settings: Callable[[str], dict[str, object] | None] | None = None


def by_variables(exporters: str, **environ: str) -> dict[str, str]:
    """The variables of a pipeline."""
    return {
        "OTEL_LOGS_EXPORTER": exporters,
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "tbot",
        "OTEL_RESOURCE_ATTRIBUTES": f"host.name={SECRET}",
        **environ,
    }


WAYS = {
    # opentelemetry-distro sets gRPC, unless the user sets a protocol.
    "the distro's protocol": Way("grpc", by_variables("tbot")),
    "another protocol": Way(
        "http/protobuf", by_variables("tbot", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    ),
    "beside another exporter": Way("grpc", by_variables("console,tbot")),
}
# Declarative files came after the oldest SDK.
if find_spec("opentelemetry.configuration"):
    WAYS |= {
        "a file with null": Way("grpc", {}, lambda _: None),
        "a file with arguments": Way(
            "http/protobuf",
            {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:1"},
            lambda endpoint: {
                "protocol": "http/protobuf",
                "endpoint": f"{endpoint}/v1/logs",
                "headers": [{"name": "x-tenant", "value": "blue"}],
                "compression": "gzip",
                "timeout": 10_000,
            },
        ),
    }

# A record of another library, an event of one who does not use record_start, and one who does.
APPLICATION = f"""
import json
from opentelemetry._logs import LogRecord, get_logger_provider
from tbot_otel import StartEvent, record_start
event = StartEvent(run_mode="daemon", version="18.3.0")
provider = get_logger_provider()
logger = provider.get_logger("{SECRET}")
logger.emit(LogRecord(body="{SECRET}"))
attributes = {{**event.attributes, "{SECRET}": "{SECRET}"}}
logger.emit(LogRecord(event_name="tbot.start", body="{SECRET}", attributes=attributes))
session = record_start(event, logger_provider=provider)
outcome = session.flush(15)
print(json.dumps([provider.resource.attributes["session.id"], session.id, outcome.status.name]))
"""


@pytest.mark.parametrize("name", WAYS)
def test_configured(name: str, rotel: Rotel, tmp_path: Path) -> None:
    """A pipeline that is configured delivers events under the anonymous Resource, and no others.

    The detector's session is that of the event with none of its own.
    """
    way = WAYS[name]
    endpoint = rotel.endpoint(way.protocol)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **way.environ}
    if way.settings:
        exporter = {"tbot": way.settings(endpoint)}
        file = tmp_path / "otel.yaml"
        # What is JSON is YAML.
        file.write_text(
            json.dumps(
                {
                    "file_format": "1.0",
                    "resource": {
                        "attributes": [{"name": "host.name", "value": SECRET}],
                        "detection/development": {"detectors": [{"tbot": None}]},
                    },
                    "logger_provider": {"processors": [{"batch": {"exporter": exporter}}]},
                }
            )
        )
        environ["OTEL_CONFIG_FILE"] = str(file)
    done = run(
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        *(sys.executable, "-c", APPLICATION),
        timeout=60,
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        # The oldest SDK's own configuration uses what it deprecates.
        PYTHONWARNINGS="error,ignore::DeprecationWarning",
        **environ,
    )
    assert done.returncode == 0, done.stderr
    assert "Tbot" not in done.stderr
    *others, last = done.stdout.splitlines()
    detected, recorded, status = json.loads(last)
    assert status == "DELIVERED"
    for session_id in (detected, recorded):
        printed = rotel.find(session_id)
        assert printed.count("EventName: tbot.start") == printed.count("LogRecord #") == 1
        assert SECRET not in printed
    # The other exporter sees the records as they were emitted.
    assert (SECRET in "".join(others)) == ("console" in way.environ.get("OTEL_LOGS_EXPORTER", ""))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Standin]:
    """Opt in, and receive what leaves. A test may give the answer."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")
    with Standin(getattr(request, "param", Answer())) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        yield collector


@pytest.fixture(params=PROCESSORS)
def provider(request: pytest.FixtureRequest, collector: Standin) -> Iterator[LoggerProvider]:
    """A pipeline made by hand: our exporter behind either processor, and a telling Resource."""
    del collector
    provider = LoggerProvider(Resource({"host.name": SECRET, "session.id": SECRET}))
    provider.add_log_record_processor(PROCESSORS[request.param](TbotLogExporter()))
    yield provider
    provider.shutdown()


def emit(provider: LoggerProvider) -> None:
    """Emit a record of another library, and an event of one who does not use record_start."""
    logger = provider.get_logger(SECRET)
    logger.emit(LogRecord(body=SECRET, attributes={SECRET: SECRET}))
    attributes = {**EVENT.attributes, SECRET: SECRET}
    logger.emit(LogRecord(event_name="tbot.start", body=SECRET, attributes=attributes))


def test_by_hand(provider: LoggerProvider, collector: Standin) -> None:
    """Only events leave, with no trace and none of the pipeline's Resource."""
    with TracerProvider().get_tracer("app").start_as_current_span("request"):
        emit(provider)
        started = record_start(EVENT, logger_provider=provider)
    assert started.flush(PATIENCE).status is Status.DELIVERED
    assert all(SECRET.encode() not in request.body for request in collector.requests)
    logs = received(collector.requests)
    assert [attributes for attributes, _ in logs] == [
        resource_of(session.current().id),
        resource_of(started.id),
    ]
    for _, record in logs:
        assert record.event_name == "tbot.start"
        assert (record.trace_id, record.span_id, record.flags) == (b"", b"", 0)
        assert record.body.WhichOneof("value") is None


class Untouchable(Mapping[str, str]):
    """Attributes that must not be read."""

    def __getitem__(self, _: str) -> NoReturn:
        raise AssertionError

    def __iter__(self) -> NoReturn:
        raise AssertionError

    def __len__(self) -> NoReturn:
        raise AssertionError


def test_others_are_not_read(collector: Standin) -> None:
    """What is none of ours is dropped unread, and counts as exported."""
    record = LogRecord(event_name="tbot.stop", attributes=Untouchable())
    batch = [ReadableLogRecord(record, Resource({}))]
    assert TbotLogExporter().export(batch) is LogRecordExportResult.SUCCESS
    assert collector.requests == []


class Hook(LogRecordProcessor):
    """A processor that does as it is told with every record, and exports none."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def on_emit(self, *_: object) -> None:
        """Act."""
        self._act()

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, *_: object, **__: object) -> bool:
        """Hold nothing back."""
        return True


@pytest.mark.parametrize("processor", PROCESSORS)
def test_consent_withdrawn(
    processor: str, collector: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consent that is withdrawn between emission and export holds the record back."""
    provider = LoggerProvider()
    withdraw = Hook(lambda: monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "0"))
    provider.add_log_record_processor(withdraw)
    provider.add_log_record_processor(PROCESSORS[processor](TbotLogExporter()))
    outcome = record_start(EVENT, logger_provider=provider).flush(PATIENCE)
    provider.shutdown()
    assert outcome.status is Status.REFUSED
    assert outcome.reason == "TELEPORT_ANONYMOUS_TELEMETRY opts out"
    assert collector.requests == []


def test_after_shutdown(provider: LoggerProvider, collector: Standin) -> None:
    """After a shutdown of the pipeline nothing leaves, and nothing is raised."""
    provider.shutdown()
    emit(provider)
    outcome = record_start(EVENT, logger_provider=provider).flush(PATIENCE)
    assert outcome.status is Status.HANDED_OVER
    assert collector.requests == []


@pytest.mark.parametrize("used", [False, True])
def test_exporter_after_shutdown(used: bool, collector: Standin) -> None:
    """After its own shutdown an exporter fails to export, whether it was in use or not."""
    inner = in_memory()
    given = LoggerProvider()
    given.add_log_record_processor(SimpleLogRecordProcessor(inner))
    emit(given)
    batch = inner.get_finished_logs()
    exporter = TbotLogExporter()
    if used:
        assert exporter.export(batch) is LogRecordExportResult.SUCCESS
    exporter.shutdown()
    assert exporter.export(batch) is LogRecordExportResult.FAILURE
    assert exporter.force_flush()
    assert len(collector.requests) == used


@pytest.mark.usefixtures("opted_in")
def test_exporter_to_hand_over_to() -> None:
    """An exporter that is given in code gets what may leave, in place of an official one."""
    inner = in_memory()
    provider = LoggerProvider(Resource({"host.name": SECRET}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter(inner)))
    emit(provider)
    started = record_start(EVENT, logger_provider=provider)
    assert started.flush(PATIENCE).status is Status.DELIVERED
    assert [dict(each.resource.attributes) for each in inner.get_finished_logs()] == [
        resource_of(session.current().id),
        resource_of(started.id),
    ]
    assert [each.log_record.body for each in inner.get_finished_logs()] == [None, None]


@pytest.mark.usefixtures("opted_in")
def test_pipeline_without_ours() -> None:
    """A pipeline without our exporter has the record under its own Resource, and says no more."""
    inner = in_memory()
    provider = LoggerProvider(Resource({"service.name": "payroll"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(inner))
    outcome = record_start(EVENT, logger_provider=provider).flush(PATIENCE)
    provider.shutdown()
    assert outcome.status is Status.HANDED_OVER
    (log,) = inner.get_finished_logs()
    assert log.resource.attributes == {"service.name": "payroll"}
    assert log.log_record.event_name == "tbot.start"
    assert log.log_record.attributes == EVENT.attributes


@pytest.mark.usefixtures("opted_in")
def test_blocked_pipeline() -> None:
    """A pipeline that blocks does not block the caller."""
    emitted, goes_on = threading.Event(), threading.Event()

    def block() -> None:
        emitted.set()
        assert goes_on.wait(PATIENCE)

    provider = LoggerProvider()
    provider.add_log_record_processor(Hook(block))
    started = record_start(EVENT, logger_provider=provider)
    assert emitted.wait(PATIENCE)
    assert started.flush(0).status is Status.PENDING
    goes_on.set()
    assert started.flush(PATIENCE).status is Status.HANDED_OVER


@pytest.mark.usefixtures("opted_in")
def test_pipeline_that_raises() -> None:
    """A pipeline that raises makes the start fail, and raises nothing in the caller."""

    def fail() -> NoReturn:
        raise ValueError(SECRET)

    provider = LoggerProvider()
    provider.add_log_record_processor(Hook(fail))
    outcome = record_start(EVENT, logger_provider=provider).flush(PATIENCE)
    assert (outcome.status, outcome.reason) == (
        Status.FAILED,
        "it could not be sent (ValueError)",
    )


@pytest.mark.parametrize("private", [True, False])
def test_instrumented_requests(private: bool, collector: Standin) -> None:
    """Our export takes no part in a trace where the HTTP client is instrumented."""
    tracers = TracerProvider()
    pipeline = LoggerProvider()
    pipeline.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter()))
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=tracers)
    try:
        with tracers.get_tracer("app").start_as_current_span("request"):
            started = record_start(EVENT, logger_provider=None if private else pipeline)
            assert started.flush(PATIENCE).status is Status.DELIVERED
            requests.post(collector.endpoint, timeout=PATIENCE)
    finally:
        instrumentor.uninstrument()
        pipeline.shutdown()
    ours, other = collector.requests
    assert not ours.headers.keys() & {"traceparent", "tracestate", "baggage"}
    assert "traceparent" in other.headers


@pytest.mark.filterwarnings("ignore:.*LoggingHandler:DeprecationWarning")
@pytest.mark.parametrize("collector", [Answer(400)], indirect=True)
def test_logs_do_not_loop(provider: LoggerProvider, collector: Standin) -> None:
    """Logs that an export makes, fed back into its own pipeline, cause no further export."""
    root = logging.getLogger()
    handler = LoggingHandler(logger_provider=provider)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        for _ in range(3):
            outcome = record_start(EVENT, logger_provider=provider).flush(PATIENCE)
            assert outcome.reason == "the Collector answered 400"
            provider.force_flush()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert len(collector.requests) == 3


FORK = f"""
import os, signal, sys
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider, export
from tbot_otel import StartEvent, TbotLogExporter, record_start

processor, used = sys.argv[1:]
event = StartEvent(run_mode="daemon", version="18.3.0")
provider = LoggerProvider()
provider.add_log_record_processor(getattr(export, processor)(TbotLogExporter()))

def emit():
    record = LogRecord(event_name="tbot.start", attributes=event.attributes)
    provider.get_logger("{SECRET}").emit(record)
    print(record_start(event, logger_provider=provider).flush(15).status.name)
    sys.stdout.flush()

if used == "used":
    emit()
if os.fork() == 0:
    signal.alarm(20)
    emit()
    os._exit(0)
os.wait()
emit()
"""


@pytest.mark.parametrize(
    ("protocol", "used"), [("http/protobuf", "used"), ("http/protobuf", ""), ("grpc", "")]
)
@pytest.mark.parametrize("processor", PROCESSORS.values())
def test_fork(protocol: str, used: str, processor: type) -> None:
    """After a fork the child's events arrive in a session of its own, and its parent's go on.

    gRPC itself has to be forked before its first use.
    """
    with standin(protocol) as collector, tapped(collector.endpoint) as (endpoint, said):
        done = run(
            *("-c", FORK, processor.__name__, used),
            timeout=60,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            # From 3.12 on Python warns of a fork beside a thread.
            PYTHONWARNINGS="error,ignore::DeprecationWarning",
        )
    sessions = [str(logs["session.id"]) for logs, _ in received(collector.requests)]
    times = 3 if used else 2
    assert done.stdout.split() == ["DELIVERED"] * times, done.stderr
    assert len(sessions) == 2 * times
    *before, child, _, parent, _ = sessions
    assert child != parent
    assert before[:1] in ([], [parent])
    # Each start has one of its own, beside those of the two processes.
    assert len(set(sessions)) == times + 2
    # No process wrote to a connection of the other's.
    assert not any(child.encode() in each and parent.encode() in each for each in said)


class Leaving(LogRecordProcessor):
    """Ends the thread that it is called on."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> NoReturn:  # noqa: ARG002
        """Leave."""
        raise SystemExit(7)

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002
        """Do nothing."""
        return True


@pytest.mark.usefixtures("opted_in")
def test_a_pipeline_that_leaves() -> None:
    """A pipeline that ends its thread fails its own start, and no later one."""
    provider = LoggerProvider()
    provider.add_log_record_processor(Leaving())
    for _ in range(2):
        outcome = record_start(EVENT, logger_provider=provider).flush(15)
        assert outcome.reason == "it could not be sent (SystemExit)"
    provider.shutdown()
