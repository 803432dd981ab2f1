"""OptInLogRecordProcessor: the gate of a shared pipeline. One start has one id and one time."""

import json

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource

from support.cases import FULL_ATTRIBUTES, FULL_FIELDS
from support.collectors import Collector
from support.otlp import expected_resource
from support.processes import WAIT_SECONDS, run_python
from tbot_otel import (
    OptInLogRecordProcessor,
    StartEvent,
    Status,
    TbotLogExporter,
    record_start,
)

pytestmark = pytest.mark.usefixtures("opted_in")

EVENT = StartEvent(**FULL_FIELDS)
SECRET = "s3cret"


def make_provider(*processors: LogRecordProcessor, **resource: str) -> LoggerProvider:
    """A pipeline with a Resource that identifies."""
    provider = LoggerProvider(Resource({"host.name": SECRET, **resource}), shutdown_on_exit=False)
    for processor in processors:
        provider.add_log_record_processor(processor)
    return provider


DETECTOR_SCRIPT = """
import json, os
from opentelemetry.sdk.resources import Resource
from tbot_otel import TbotResourceDetector
by_name = Resource.create().attributes.get("session.id")
print(json.dumps([by_name, TbotResourceDetector().detect().attributes["session.id"]]))
"""


@pytest.mark.parametrize(
    ("variable", "is_offered"),
    [("tbot", True), ("otel, tbot", True), ("*,tbot", True), ("*", False), ("otel,*", False)],
)
def test_detector_is_named(variable: str, *, is_offered: bool) -> None:
    """The variable offers the session id only by name. In code, the detector always does."""
    done = run_python(
        *("-W", "ignore", "-c", DETECTOR_SCRIPT),
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=variable,
    )
    assert done.returncode == 0, done.stderr
    by_name, in_code = json.loads(done.stdout)
    assert by_name == (in_code if is_offered else None)


@pytest.mark.parametrize("exporter", ["official", "tbot"])
def test_delivered(exporter: str, collector: Collector) -> None:
    """The Collector receives the record from either exporter behind the processor."""
    url = f"{collector.endpoint('http/protobuf')}/v1/logs"
    inner = (
        OTLPLogExporter(endpoint=url)
        if exporter == "official"
        else TbotLogExporter(protocol="http/protobuf", endpoint=url)
    )
    provider = make_provider(OptInLogRecordProcessor(BatchLogRecordProcessor(inner)))
    provider.get_logger(SECRET).emit(LogRecord(body=SECRET))
    session = record_start(EVENT, logger_provider=provider)
    expected = Status.HANDED_OVER if exporter == "official" else Status.DELIVERED
    assert session.flush(WAIT_SECONDS).status is expected
    provider.shutdown()
    received = collector.find(session.id)
    assert received.attributes == FULL_ATTRIBUTES
    assert received.resource == expected_resource(session.id)
    assert SECRET not in collector.find_text(session.id)
