"""A plain relay: the same runtime and server, with the SDK's records and a batch for each export.

It acknowledges a call after its export, as ours does. It checks nothing.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.server import ConnectASGIApplication, Endpoint
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tbot_otel.connect import METHOD, PATH, Request
from tbot_otel.connect.tbot_pb import SubmitTbotEventResponse

MAX_BATCH_SIZE = 512

RESOURCE = Resource({"service.name": "tbot"})
SCOPE = InstrumentationScope("plain")


class Batcher:
    """Exports the records that wait, in one export after the other."""

    def __init__(self) -> None:
        self._exporter = OTLPLogExporter()
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[ReadableLogRecord, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def deliver(self, record: ReadableLogRecord) -> bool:
        """Export a record, and return whether the exporter succeeded."""
        delivered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, delivered))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await delivered

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._waiting[:MAX_BATCH_SIZE]:
            del self._waiting[:MAX_BATCH_SIZE]
            records = [record for record, _ in batch]
            result = await loop.run_in_executor(self._thread, self._exporter.export, records)
            for _, delivered in batch:
                if not delivered.done():
                    delivered.set_result(result is LogRecordExportResult.SUCCESS)
        self._task = None


batcher = Batcher()


async def submit(request: Request, _: object) -> SubmitTbotEventResponse:
    """Export a start."""
    start = request.event and request.event.value
    now = time.time_ns()
    record = LogRecord(
        timestamp=now,
        observed_timestamp=now,
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        event_name="tbot.start",
        attributes={
            "session.id": request.distinct_id,
            "tbot.run_mode": getattr(start, "run_mode", 0),
            "tbot.version": getattr(start, "version", ""),
            "tbot.join_type": getattr(start, "join_type", ""),
        },
    )
    if not await batcher.deliver(ReadableLogRecord(record, RESOURCE, SCOPE)):
        raise ConnectError(Code.UNAVAILABLE, "not delivered")
    return SubmitTbotEventResponse()


class Application(ConnectASGIApplication[None]):
    """The service with the one method."""

    path = "/"


application = Application(
    service=None, endpoints=lambda _: {PATH: Endpoint.unary(method=METHOD, function=submit)}
)
