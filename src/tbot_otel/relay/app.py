"""The ASGI application of a relay's worker process."""

import asyncio
import gc
import json
import logging
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import Any, cast

from connectrpc.code import Code

from tbot_otel.connect import (
    MAX_REQUEST_BYTES,
    RESPONSE_TIMEOUT_SECONDS,
    Context,
    Report,
    Request,
    asgi_application,
    parse_report,
)
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.arguments import Arguments
from tbot_otel.otlp.responses import TIMED_OUT, ResponseObserver
from tbot_otel.otlp.send import build_exporter, export_and_observe
from tbot_otel.relay.batch import ReportBatch, install_batch_encoder
from tbot_otel.relay.committer import Committer
from tbot_otel.relay.metrics import Metrics
from tbot_otel.session import Status

_logger = logging.getLogger("tbot_otel.relay")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_CONCURRENT_CALLS = 4096
"""The most calls in flight in a worker. One more is refused at once."""
MAX_UNREAD_BYTES = 32 * 2**20
"""The most bytes that calls in flight may still send."""
BODY_TIMEOUT_SECONDS = 5.0
"""The longest time until a call's body has arrived."""

_SWEEP_INTERVAL_SECONDS = 0.5
_MAX_CONCURRENT_PROBES = 64
_TOO_MANY_CALLS = {
    "code": Code.RESOURCE_EXHAUSTED.value,
    "message": "too many calls are in flight",
}


class _Call:
    """A call in flight, and how its response is sent.

    `send` waits for the export, not the handler: while a handler waits, the runtime watches for a
    disconnect, which costs a fifth of the call and makes no difference to the report.

    Attributes:
        unread_bytes: How many bytes it may still send.
        deadline: When it is abandoned, on the monotonic clock in seconds.
        result: The future of why its report was not delivered; None until the report has arrived.
    """

    __slots__ = ("_problem", "_send", "deadline", "result", "unread_bytes")

    def __init__(self, send: Send, unread_bytes: int) -> None:
        self._send = send
        self._problem: str | None = None
        self.unread_bytes: int = unread_bytes
        self.deadline: float = time.monotonic() + BODY_TIMEOUT_SECONDS
        self.result: asyncio.Future[str | None] | None = None

    async def send(self, message: Message) -> None:
        if message.get("status") == 200 and self.result is not None:
            self._problem = await self.result
            if self._problem is not None:
                error = {"code": Code.UNAVAILABLE.value, "message": self._problem}
                await _send_json(self._send, 503, error)
        if self._problem is None:
            await self._send(message)


class RelayApp:
    """Responds to tbots, and to health checks.

    Args:
        prefix: The path before that of a call: ``/`` and a secret, or empty.
        allowed_helpers: See `policy.decide`.
    """

    def __init__(self, prefix: str = "", allowed_helpers: Collection[str] = ()) -> None:
        self._allowed_helpers = allowed_helpers
        self._observer = ResponseObserver()
        # Fail at startup on invalid configuration.
        self._exporter = build_exporter(Arguments(), self._observer)
        if not self._observer.is_attached:
            raise ExporterConfigurationError(
                "the relay cannot observe the Collector's responses: "
                "a credential provider's session, or this exporter's version, hides them"
            )
        install_batch_encoder()
        self._committer = Committer(self._export)
        self._connect = asgi_application(self._handle_report, prefix)
        self._metrics = Metrics()
        self._calls: dict[asyncio.Task[Any] | None, _Call] = {}
        self._unread_bytes = 0
        self._probe_count = 0
        self._last_problem: str | None = "there was no export yet"

    def _export(self, reports: Sequence[Report]) -> str | None:
        started_at = time.monotonic()
        outcome = export_and_observe(self._exporter, self._observer, ReportBatch(reports))
        problem = None if outcome.status is Status.DELIVERED else outcome.reason
        if problem != self._last_problem:
            # On a change only: there can be hundreds of exports a second.
            if problem is None:
                _logger.info("the Collector accepts exports")
            else:
                _logger.warning("the Collector does not accept exports: %s", problem)
        self._last_problem = problem
        if reports:
            seconds = time.monotonic() - started_at
            self._metrics.record_export(len(reports), seconds, delivered=problem is None)
        return problem

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Respond to a request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] == "/healthz":
            await _send_json(send, 200, {"status": "ok"})
        elif scope["path"] == "/readyz":
            problem = await self._find_problem()
            status = {"status": "ok"} if problem is None else {"status": problem}
            await _send_json(send, 200 if problem is None else 503, status)
        else:
            await self._handle_call(scope, receive, self._record_response(send))

    async def _find_problem(self) -> str | None:
        if self._last_problem is None:
            return None
        if self._probe_count >= _MAX_CONCURRENT_PROBES:
            return "too many probes"
        self._probe_count += 1
        try:
            return await self._committer.probe()
        finally:
            self._probe_count -= 1

    async def _handle_call(self, scope: Message, receive: Receive, send: Send) -> None:
        self._metrics.record_call()
        max_bytes = _max_body_bytes(scope["headers"])
        # An abandoned call ends before its report leaves the queue.
        call_count = max(len(self._calls), self._committer.waiting_count)
        if call_count >= MAX_CONCURRENT_CALLS or self._unread_bytes + max_bytes > MAX_UNREAD_BYTES:
            await _send_json(send, 429, _TOO_MANY_CALLS)
            return
        task = asyncio.current_task()
        self._calls[task] = call = _Call(send, max_bytes)
        self._unread_bytes += max_bytes
        try:
            await self._connect(scope, receive, call.send)
        except asyncio.CancelledError:
            # `_expire_calls` cancelled it. It has its response, and the server would print a
            # traceback.
            if call.deadline > time.monotonic():
                raise
        finally:
            del self._calls[task]
            self._unread_bytes -= call.unread_bytes

    def _record_response(self, send: Send) -> Send:
        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.record_response(message["status"])
            await send(message)

        return send_and_record

    async def _handle_report(self, request: Request, _: Context) -> None:
        report = parse_report(request, time.time_ns(), self._allowed_helpers)
        call = self._calls[asyncio.current_task()]
        self._unread_bytes -= call.unread_bytes
        call.unread_bytes = 0
        call.result = self._committer.commit(report)
        call.deadline = time.monotonic() + RESPONSE_TIMEOUT_SECONDS

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        # Calls create few cycles; collecting every 700 allocations slows down as they queue.
        gc.freeze()
        gc.set_threshold(50_000)
        sweeping = asyncio.create_task(self._sweep())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        sweeping.cancel()
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._metrics.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _sweep(self) -> None:
        """Expire calls; a timer for each call would cost more."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_SECONDS)
            self._expire_calls()

    def _expire_calls(self) -> None:
        now = time.monotonic()
        for task, call in list(self._calls.items()):
            if call.deadline > now:
                continue
            if call.result is None:
                # It still waits for its body.
                cast("asyncio.Task[Any]", task).cancel()
            elif not call.result.done():
                call.result.set_result(TIMED_OUT)
        self._committer.drop_abandoned()


def _max_body_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return how many bytes a call's body may have. A body without a length may have the most."""
    for name, value in headers:
        if name == b"content-length":
            # int() refuses text that is too long.
            valid = value.isdigit() and len(value) < 20
            return min(int(value), MAX_REQUEST_BYTES) if valid else MAX_REQUEST_BYTES
    return MAX_REQUEST_BYTES


async def _send_json(send: Send, status: int, content: Mapping[str, str]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
