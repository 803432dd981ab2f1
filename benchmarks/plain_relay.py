"""A plain relay: the same runtime and server, with one emit and one export per call."""

from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.server import ConnectASGIApplication, Endpoint
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource

from tbot_otel.connect import METHOD, PATH, Request
from tbot_otel.connect.tbot_pb import SubmitTbotEventResponse

exporter = OTLPLogExporter()


async def submit(request: Request, _: object) -> SubmitTbotEventResponse:
    """Emit and export a start."""
    exporter_of_call = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    resource = Resource({"service.name": "tbot", "session.id": request.distinct_id})
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter_of_call))
    start: Any = request.event and request.event.value
    provider.get_logger("plain").emit(
        event_name="tbot.start",
        attributes={"tbot.version": start.version, "tbot.join_type": start.join_type},
    )
    if exporter.export(exporter_of_call.get_finished_logs()) is not LogRecordExportResult.SUCCESS:
        raise ConnectError(Code.UNAVAILABLE, "not delivered")
    return SubmitTbotEventResponse()


class Application(ConnectASGIApplication[None]):
    """The service with the one method."""

    path = "/"


application = Application(
    service=None, endpoints=lambda _: {PATH: Endpoint.unary(method=METHOD, function=submit)}
)
