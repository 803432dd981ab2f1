"""Receives the starts of a test."""

import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

from tbot_otel import sender
from tbot_otel.otlp.environment import LOGS_PATH
from tbot_otel.registry import EVENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

_HOST = "127.0.0.1"
_POLL_INTERVAL_SECONDS = 0.05
_SENDING_TIMEOUT_SECONDS = 60.0
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class RecordedStart(NamedTuple):
    """A start as the Collector would have received it."""

    event_name: str
    """``tbot.start``."""
    attributes: dict[str, str | int]
    """The attributes that policy permitted: see docs/events.md."""
    resource_attributes: dict[str, str | int]
    """The attributes of the anonymous Resource."""
    timestamp: int
    """The time of the start, less a random part of a minute, in nanoseconds since 1970-01-01
    UTC."""

    @property
    def session_id(self) -> str:
        """The id of its `tbot_otel.Session`, which has the outcome."""
        return str(self.resource_attributes["session.id"])


class StartReceiver:
    """Receives the starts of a test on loopback: the fixture ``tbot_starts``.

    It serves until its block ends, and then until this process has sent its starts.

    Attributes:
        endpoint: Its URL, for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
    """

    def __init__(self) -> None:
        self._exports: list[bytes] = []
        self._arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding"):
                    body = zlib.decompress(body, _GZIP_OR_ZLIB)
                is_export = self.path == LOGS_PATH
                if is_export:
                    receiver._add(body)
                self.send_response(200 if is_export else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Write nothing to standard error."""

        self._server = ThreadingHTTPServer((_HOST, 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_INTERVAL_SECONDS,), daemon=True
        )
        self.endpoint: str = f"http://{_HOST}:{self._server.server_port}"

    def _add(self, export: bytes) -> None:
        with self._arrived:
            self._exports.append(export)
            self._arrived.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Later, they would go where the machine's own variables lead.
        for start in sender.pending_starts():
            start.wait(_SENDING_TIMEOUT_SECONDS)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def received(self) -> list[RecordedStart]:
        """The starts that have arrived, in order. Other log records are not among them."""
        with self._arrived:
            exports = [*self._exports]
        return [start for export in exports for start in _starts_of(export)]

    def wait(self, count: int = 1, timeout: float = 30.0) -> list[RecordedStart]:
        """Wait until starts have arrived, and return all that have.

        Args:
            count: How many starts to wait for.
            timeout: The longest wait, in seconds.

        Raises:
            AssertionError: Fewer starts have arrived.
        """
        __tracebackhide__ = True
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.received) >= count, timeout)
            starts = self.received
        if len(starts) < count:
            raise AssertionError(
                f"expected {count} starts within {timeout} seconds, received {len(starts)}"
            )
        return starts


def _starts_of(export: bytes) -> Iterator[RecordedStart]:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    for logs in ExportLogsServiceRequest.FromString(export).resource_logs:
        resource_attributes = _values(logs.resource.attributes)
        for scope in logs.scope_logs:
            for record in scope.log_records:
                if record.event_name in EVENTS:
                    yield RecordedStart(
                        record.event_name,
                        _values(record.attributes),
                        resource_attributes,
                        record.time_unix_nano,
                    )


def _values(attributes: "Iterable[KeyValue]") -> dict[str, str | int]:
    return {
        attribute.key: getattr(attribute.value, str(attribute.value.WhichOneof("value")))
        for attribute in attributes
    }
