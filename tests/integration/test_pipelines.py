"""The plugin in pipelines that variables, a declarative file or code configure."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import requests
from opentelemetry._logs import LoggerProvider as APILoggerProvider
from opentelemetry._logs import LogRecord, NoOpLogger, NoOpLoggerProvider, get_logger_provider
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

from support.cases import OTHER
from support.collectors import Collector
from support.otlp import expected_resource, received_records
from support.processes import WAIT_SECONDS, run_python
from support.standins import HTTPStandin, Response, accepting_standin, recording_proxy
from tbot_otel import (
    StartEvent,
    Status,
    TbotLogExporter,
    record_start,
)
from tbot_otel.pipeline.resource import EntryPointResourceDetector

EVENT = StartEvent(run_mode="daemon", version="18.3.0")
SECRET = "s3cret"
HELPER = "acme-deploy"
# The SDK's constructor has no types.
make_in_memory_exporter: Callable[[], InMemoryLogRecordExporter] = InMemoryLogRecordExporter
PROCESSORS = {"simple": SimpleLogRecordProcessor, "batch": BatchLogRecordProcessor}


@pytest.mark.parametrize(
    ("group", "base", "ours"),
    [
        ("opentelemetry_logs_exporter", LogRecordExporter, TbotLogExporter),
        ("opentelemetry_resource_detector", ResourceDetector, EntryPointResourceDetector),
    ],
)
def test_entry_points(group: str, base: type, ours: type) -> None:
    """Each entry point loads our class, which has the type that the SDK expects."""
    (point,) = entry_points(group=group, name="tbot")
    assert point.load() is ours
    assert issubclass(ours, base)


class Configuration(NamedTuple):
    """A configuration of a pipeline: variables, or the exporter's arguments for an endpoint."""

    protocol: str
    environ: dict[str, str]
    arguments: Callable[[str], dict[str, object] | None] | None = None


def pipeline_variables(exporters: str, **environ: str) -> dict[str, str]:
    """The variables that configure a pipeline."""
    return {
        "OTEL_LOGS_EXPORTER": exporters,
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "tbot",
        "OTEL_RESOURCE_ATTRIBUTES": f"host.name={SECRET}",
        **environ,
    }


CONFIGURATIONS = {
    # opentelemetry-distro sets gRPC, unless the user sets a protocol.
    "the distro's protocol": Configuration("grpc", pipeline_variables("tbot")),
    "another protocol": Configuration(
        "http/protobuf", pipeline_variables("tbot", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    ),
    "with another exporter": Configuration("grpc", pipeline_variables("console,tbot")),
}
# The oldest SDK does not have declarative files.
if find_spec("opentelemetry.configuration"):
    CONFIGURATIONS |= {
        "a file with null": Configuration("grpc", {}, lambda _: None),
        "a file with arguments": Configuration(
            "http/protobuf",
            {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:1"},
            lambda endpoint: {
                "protocol": "http/protobuf",
                "endpoint": f"{endpoint}/v1/logs",
                "headers": [{"name": "x-tenant", "value": "blue"}],
                "compression": "gzip",
                "timeout": 10_000,
                "allowed_helpers": [HELPER],
            },
        ),
    }

# Emits a record of another library, and records a start.
APPLICATION_SCRIPT = f"""
import json
from opentelemetry._logs import LogRecord, get_logger_provider
from tbot_otel import StartEvent, record_start
event = StartEvent(run_mode="daemon", version="18.3.0", helper="{HELPER}")
provider = get_logger_provider()
logger = provider.get_logger("{SECRET}")
logger.emit(LogRecord(body="{SECRET}"))
session = record_start(event, logger_provider=provider)
outcome = session.flush(30)
print(json.dumps([provider.resource.attributes["session.id"], session.id, outcome.status.name]))
"""


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configured(name: str, collector: Collector, tmp_path: Path) -> None:
    """A configured pipeline delivers only events, with the anonymous Resource.

    The start has the session id of the resource detector.
    """
    configuration = CONFIGURATIONS[name]
    endpoint = collector.endpoint(configuration.protocol)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **configuration.environ}
    if configuration.arguments:
        exporter = {"tbot": configuration.arguments(endpoint)}
        file = tmp_path / "otel.yaml"
        # JSON is also YAML.
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
    done = run_python(
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        *(sys.executable, "-c", APPLICATION_SCRIPT),
        timeout=60,
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        # The configuration of the oldest SDK uses its own deprecated functions.
        PYTHONWARNINGS="error,ignore::DeprecationWarning",
        **environ,
    )
    assert done.returncode == 0, done.stderr
    assert "Tbot" not in done.stderr
    *others, last = done.stdout.splitlines()
    detected, recorded, status = json.loads(last)
    assert status == "DELIVERED"
    assert detected == recorded
    received = collector.find(recorded)
    assert received.event_name == "tbot.start"
    allowed = name == "a file with arguments"
    assert received.attributes["tbot.helper"] == (HELPER if allowed else OTHER)
    assert SECRET not in collector.find_text(recorded)
    # The other exporter gets the records as they were emitted.
    assert (SECRET in "".join(others)) == (
        "console" in configuration.environ.get("OTEL_LOGS_EXPORTER", "")
    )


@pytest.fixture
def standin(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[HTTPStandin]:
    """Opt in, and receive all exports. The fixture's parameter is the response."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")
    with HTTPStandin(getattr(request, "param", Response())) as standin:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", standin.endpoint)
        yield standin


@pytest.fixture(params=PROCESSORS)
def provider(request: pytest.FixtureRequest, standin: HTTPStandin) -> Iterator[LoggerProvider]:
    """A pipeline in code: our exporter with each processor, and a Resource that identifies."""
    del standin
    provider = LoggerProvider(Resource({"host.name": SECRET, "session.id": SECRET}))
    provider.add_log_record_processor(PROCESSORS[request.param](TbotLogExporter()))
    yield provider
    provider.shutdown()


def emit(provider: LoggerProvider) -> None:
    """Emit a record of another library, and an event by the SDK alone."""
    logger = provider.get_logger(SECRET)
    logger.emit(LogRecord(body=SECRET, attributes={SECRET: SECRET}))
    attributes = {**EVENT.attributes, SECRET: SECRET}
    logger.emit(LogRecord(event_name="tbot.start", body=SECRET, attributes=attributes))


def test_in_code(provider: LoggerProvider, standin: HTTPStandin) -> None:
    """Only events leave, without the trace and without the pipeline's Resource."""
    with TracerProvider().get_tracer("app").start_as_current_span("request"):
        emit(provider)
        started = record_start(EVENT, logger_provider=provider)
    assert started.flush(WAIT_SECONDS).status is Status.DELIVERED
    assert all(SECRET.encode() not in request.body for request in standin.requests)
    logs = received_records(standin.requests)
    (foreign, _), (own, _) = logs
    assert own == expected_resource(started.id)
    assert foreign == expected_resource(str(foreign["session.id"]))
    assert foreign["session.id"] != started.id
    for _, record in logs:
        assert record.event_name == "tbot.start"
        assert (record.trace_id, record.span_id, record.flags) == (b"", b"", 0)
        assert record.body.WhichOneof("value") is None


class UnreadableAttributes(Mapping[str, str]):
    """Attributes that must not be read."""

    def __getitem__(self, _: str) -> NoReturn:
        raise AssertionError

    def __iter__(self) -> NoReturn:
        raise AssertionError

    def __len__(self) -> NoReturn:
        raise AssertionError


def test_other_records_are_not_read(standin: HTTPStandin) -> None:
    """Other records are dropped unread, and count as exported."""
    record = LogRecord(event_name="tbot.stop", attributes=UnreadableAttributes())
    batch = [ReadableLogRecord(record, Resource({}))]
    assert TbotLogExporter().export(batch) is LogRecordExportResult.SUCCESS
    assert standin.requests == []


class HookProcessor(LogRecordProcessor):
    """A processor that calls a function for each record, and exports nothing."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def on_emit(self, *_: object) -> None:
        """Call the function."""
        self._function()

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, *_: object, **__: object) -> bool:
        """Do nothing."""
        return True


@pytest.mark.parametrize("processor", PROCESSORS)
def test_consent_withdrawn(
    processor: str, standin: HTTPStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When consent is withdrawn between emission and export, the record is not sent."""
    provider = LoggerProvider()
    withdraw = HookProcessor(lambda: monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "0"))
    provider.add_log_record_processor(withdraw)
    provider.add_log_record_processor(PROCESSORS[processor](TbotLogExporter()))
    outcome = record_start(EVENT, logger_provider=provider).flush(WAIT_SECONDS)
    provider.shutdown()
    assert outcome.status is Status.REFUSED
    assert outcome.reason == "TELEPORT_ANONYMOUS_TELEMETRY opts out"
    assert standin.requests == []


def test_after_shutdown(provider: LoggerProvider, standin: HTTPStandin) -> None:
    """After a shutdown of the pipeline, nothing is sent or raised."""
    provider.shutdown()
    emit(provider)
    outcome = record_start(EVENT, logger_provider=provider).flush(WAIT_SECONDS)
    assert outcome.status is Status.HANDED_OVER
    assert standin.requests == []


def test_flush_fails(provider: LoggerProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that has the record, and cannot be flushed, has the record."""

    def fail() -> None:
        raise TimeoutError

    monkeypatch.setattr(provider, "force_flush", fail)
    session = record_start(EVENT, logger_provider=provider)
    assert session.flush(WAIT_SECONDS).status in (Status.DELIVERED, Status.HANDED_OVER)


@pytest.mark.parametrize("used", [False, True])
def test_exporter_after_shutdown(used: bool, standin: HTTPStandin) -> None:
    """After its shutdown, a used or unused exporter fails to export."""
    inner = make_in_memory_exporter()
    source = LoggerProvider()
    source.add_log_record_processor(SimpleLogRecordProcessor(inner))
    emit(source)
    batch = inner.get_finished_logs()
    exporter = TbotLogExporter()
    if used:
        assert exporter.export(batch) is LogRecordExportResult.SUCCESS
    exporter.shutdown()
    assert exporter.export(batch) is LogRecordExportResult.FAILURE
    assert exporter.force_flush()
    assert len(standin.requests) == used


@pytest.mark.usefixtures("opted_in")
def test_exporter_argument() -> None:
    """An exporter from an argument gets the permitted attributes, in place of an official one."""
    inner = make_in_memory_exporter()
    provider = LoggerProvider(Resource({"host.name": SECRET}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter(inner)))
    emit(provider)
    started = record_start(EVENT, logger_provider=provider)
    assert started.flush(WAIT_SECONDS).status is Status.UNOBSERVED
    foreign, own = (dict(each.resource.attributes) for each in inner.get_finished_logs())
    assert own == expected_resource(started.id)
    assert foreign == expected_resource(str(foreign["session.id"]))
    assert [each.log_record.body for each in inner.get_finished_logs()] == [None, None]


@pytest.mark.usefixtures("opted_in")
def test_pipeline_without_our_exporter() -> None:
    """A pipeline without our exporter gets the record with its own Resource."""
    inner = make_in_memory_exporter()
    provider = LoggerProvider(Resource({"service.name": "payroll"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(inner))
    outcome = record_start(EVENT, logger_provider=provider).flush(WAIT_SECONDS)
    provider.shutdown()
    assert outcome.status is Status.HANDED_OVER
    (log,) = inner.get_finished_logs()
    assert log.resource.attributes == {"service.name": "payroll"}
    assert log.log_record.event_name == "tbot.start"
    assert log.log_record.attributes == EVENT.attributes


NOBODY = "no processor of the logger_provider takes it"
# Before SDK 1.45, a logger does not tell whether it has a processor.
LOGGERS_TELL = hasattr(NoOpLogger, "enabled")


class RefusingProcessor(SimpleLogRecordProcessor):
    """A processor that takes no record."""

    def enabled(self, **_: object) -> bool:
        """Take none."""
        return False


def refusing_pipeline() -> LoggerProvider:
    """A pipeline whose only processor takes no record."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(RefusingProcessor(make_in_memory_exporter()))
    return provider


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    "make_provider",
    [
        NoOpLoggerProvider,
        # The global one, which is not set here.
        get_logger_provider,
        *((partial(LoggerProvider, shutdown_on_exit=False), refusing_pipeline) * LOGGERS_TELL),
    ],
    ids=["no-op", "not set", *("no processor", "refuses") * LOGGERS_TELL],
)
def test_pipeline_that_takes_nothing(make_provider: Callable[[], APILoggerProvider]) -> None:
    """A start that no processor takes has failed."""
    outcome = record_start(EVENT, logger_provider=make_provider()).flush(WAIT_SECONDS)
    assert (outcome.status, outcome.reason) == (Status.FAILED, NOBODY)


@pytest.mark.usefixtures("opted_in")
def test_consent_withdrawn_before_emission(monkeypatch: pytest.MonkeyPatch) -> None:
    """When consent is withdrawn before the background thread emits, the record is not emitted."""
    emitted, released = threading.Event(), threading.Event()

    def block() -> None:
        emitted.set()
        assert released.wait(WAIT_SECONDS)

    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(HookProcessor(block))
    first = record_start(EVENT, logger_provider=provider)
    assert emitted.wait(WAIT_SECONDS)
    emitted.clear()
    second = record_start(EVENT, logger_provider=provider)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    released.set()
    assert second.flush(WAIT_SECONDS).status is Status.REFUSED
    assert first.flush(WAIT_SECONDS).status is Status.HANDED_OVER
    assert not emitted.is_set()


@pytest.mark.usefixtures("opted_in")
def test_blocked_pipeline() -> None:
    """A pipeline that blocks does not block the caller."""
    emitted, released = threading.Event(), threading.Event()

    def block() -> None:
        emitted.set()
        assert released.wait(WAIT_SECONDS)

    provider = LoggerProvider()
    provider.add_log_record_processor(HookProcessor(block))
    started = record_start(EVENT, logger_provider=provider)
    assert emitted.wait(WAIT_SECONDS)
    assert started.flush(0).status is Status.PENDING
    released.set()
    assert started.flush(WAIT_SECONDS).status is Status.HANDED_OVER


@pytest.mark.usefixtures("opted_in")
def test_pipeline_that_raises() -> None:
    """If a pipeline raises, the start fails and the caller sees no exception."""

    def fail() -> NoReturn:
        raise ValueError(SECRET)

    provider = LoggerProvider()
    provider.add_log_record_processor(HookProcessor(fail))
    outcome = record_start(EVENT, logger_provider=provider).flush(WAIT_SECONDS)
    assert (outcome.status, outcome.reason) == (
        Status.FAILED,
        "the record was not sent (ValueError)",
    )


@pytest.mark.parametrize("private", [True, False])
def test_instrumented_requests(private: bool, standin: HTTPStandin) -> None:
    """With an instrumented HTTP client, our export is not part of a trace."""
    tracers = TracerProvider()
    pipeline = LoggerProvider()
    pipeline.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter()))
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=tracers)
    try:
        with tracers.get_tracer("app").start_as_current_span("request"):
            started = record_start(EVENT, logger_provider=None if private else pipeline)
            assert started.flush(WAIT_SECONDS).status is Status.DELIVERED
            requests.post(standin.endpoint, timeout=WAIT_SECONDS)
    finally:
        instrumentor.uninstrument()
        pipeline.shutdown()
    ours, other = standin.requests
    assert not ours.headers.keys() & {"traceparent", "tracestate", "baggage"}
    assert "traceparent" in other.headers


@pytest.mark.filterwarnings("ignore:.*LoggingHandler:DeprecationWarning")
@pytest.mark.parametrize("standin", [Response(400)], indirect=True)
def test_no_export_loop(provider: LoggerProvider, standin: HTTPStandin) -> None:
    """Log records that an export causes in its own pipeline do not cause another export."""
    root = logging.getLogger()
    handler = LoggingHandler(logger_provider=provider)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        for _ in range(3):
            outcome = record_start(EVENT, logger_provider=provider).flush(WAIT_SECONDS)
            assert outcome.reason == "the Collector responded with 400"
            provider.force_flush()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert len(standin.requests) == 3


FORK_SCRIPT = f"""
import os, signal, sys
from opentelemetry._logs import LoggerProvider as APILoggerProvider
from opentelemetry._logs import LogRecord, NoOpLogger, NoOpLoggerProvider, get_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, export
from tbot_otel import StartEvent, TbotLogExporter, record_start

processor, used = sys.argv[1:]
event = StartEvent(run_mode="daemon", version="18.3.0")
provider = LoggerProvider()
provider.add_log_record_processor(getattr(export, processor)(TbotLogExporter()))

def emit():
    record = LogRecord(event_name="tbot.start", attributes=event.attributes)
    provider.get_logger("{SECRET}").emit(record)
    print(record_start(event, logger_provider=provider).flush(30).status.name)
    sys.stdout.flush()

if used == "used":
    emit()
if os.fork() == 0:
    signal.alarm(50)
    emit()
    os._exit(0)
os.wait()
emit()
"""


@pytest.mark.parametrize(
    ("protocol", "used", "processor"),
    [
        *(("http/protobuf", "used", processor) for processor in PROCESSORS.values()),
        ("http/protobuf", "", SimpleLogRecordProcessor),
        ("grpc", "", BatchLogRecordProcessor),
    ],
)
def test_fork(protocol: str, used: str, processor: type) -> None:
    """After a fork, events of child and parent arrive, with a session id for each process.

    gRPC supports a fork only before its first use.
    """
    with (
        accepting_standin(protocol) as collector,
        recording_proxy(collector.endpoint) as (endpoint, connections),
    ):
        done = run_python(
            *("-c", FORK_SCRIPT, processor.__name__, used),
            timeout=60,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            # Python 3.12 warns of a fork while threads run.
            PYTHONWARNINGS="error,ignore::DeprecationWarning",
        )
    sessions = [str(logs["session.id"]) for logs, _ in received_records(collector.requests)]
    times = 3 if used else 2
    assert done.stdout.split() == ["DELIVERED"] * times, done.stderr
    assert len(sessions) == 2 * times
    *_, child, _, parent, _ = sessions
    # Each start has a session id of its own, whoever emitted it.
    assert len(set(sessions)) == 2 * times
    # No connection is used by both processes.
    assert not any(child.encode() in each and parent.encode() in each for each in connections)


class ExitingProcessor(LogRecordProcessor):
    """A processor that ends the thread that calls it."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> NoReturn:  # noqa: ARG002
        """End the thread."""
        raise SystemExit(7)

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002
        """Do nothing."""
        return True


@pytest.mark.usefixtures("opted_in")
def test_pipeline_that_exits() -> None:
    """A pipeline that ends its thread fails its own start, but not the next one."""
    provider = LoggerProvider()
    provider.add_log_record_processor(ExitingProcessor())
    for _ in range(2):
        outcome = record_start(EVENT, logger_provider=provider).flush(30)
        assert outcome.reason == "the record was not sent (SystemExit)"
    provider.shutdown()
