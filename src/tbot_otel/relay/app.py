"""The application of a relay's worker process, between the HTTP server and the Connect runtime."""

import asyncio
import gc
import io
import json
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from granian.rsgi import (  # type: ignore[attr-defined]  # it exports them without a list
    HTTPProtocol,
    ProtocolClosed,
    ProtocolError,
    Scope,
)

from tbot_otel.connect import (
    MAX_REQUEST_BYTES,
    PATH,
    RESPONSE_TIMEOUT_SECONDS,
    Context,
    Report,
    Request,
    parse_report,
    wsgi_application,
)
from tbot_otel.relay.committer import Committer
from tbot_otel.relay.exporting import PROBE_TIMEOUT_SECONDS, ReportExporter
from tbot_otel.relay.metrics import Metrics
from tbot_otel.relay.problems import (
    BODY_TIMEOUT,
    CALL_TIMEOUT,
    COLLECTOR_TIMEOUT,
    COLLECTOR_TOO_SLOW,
    HTTP_STATUSES,
    TOO_LARGE,
    TOO_MANY_CALLS,
    TOO_MANY_UNREAD,
    Problem,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

    from tbot_otel.relay.committer import Result
    from tbot_otel.relay.log import ChangeLog

MAX_CONCURRENT_CALLS = 7168
"""The most calls in a worker that wait for their export. One more is refused at once.

That is most of its connections. The rest is for health checks and new calls.
"""
MAX_UNREAD_CALLS = 7168
"""The most calls in a worker whose body has not arrived. One more ends the oldest of them."""
BODY_TIMEOUT_SECONDS = 5.0
"""The longest time until a call's body has arrived."""

PROBE_INTERVAL_SECONDS = 1.0
"""The shortest time between two probes of the Collector."""

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long the event loop keeps the interpreter while the exporting thread waits for it."""

_SWEEP_INTERVAL_SECONDS = 0.5
# Only these reach the runtime. Others can identify the caller.
_HEADERS = {
    "content-type": "CONTENT_TYPE",
    "content-encoding": "HTTP_CONTENT_ENCODING",
    "accept-encoding": "HTTP_ACCEPT_ENCODING",
    "connect-protocol-version": "HTTP_CONNECT_PROTOCOL_VERSION",
    "connect-timeout-ms": "HTTP_CONNECT_TIMEOUT_MS",
}


# The status, the headers and the body.
_Response = tuple[int, list[tuple[str, str]], bytes]


class RelayApp:
    """Responds to tbots, and to health checks.

    Args:
        change_log: Logs whether the Collector accepts exports.
        prefixes: The paths that can precede that of a call: ``/`` and a secret, or empty.
        allowed_helpers: See `policy.decide`.
    """

    def __init__(
        self,
        change_log: "ChangeLog",
        prefixes: Sequence[str],
        allowed_helpers: Collection[str],
    ) -> None:
        self._allowed_helpers = allowed_helpers
        self._metrics = Metrics(lambda: self._committer.waiting_count)
        # Fail at startup on invalid configuration.
        self._exporter = ReportExporter(self._metrics, change_log)
        self._committer = Committer(self._exporter.export)
        self._connect = wsgi_application(self._handle_report, prefixes)
        self._paths = {f"{prefix}{PATH}" for prefix in prefixes}
        self._received: tuple[Report, float | None] | None = None
        self._deadlines: dict[Result, tuple[float, Problem]] = {}
        self._unread: dict[asyncio.Task[Any], float] = {}
        self._ended: dict[asyncio.Task[Any], Problem] = {}
        self._probe_thread = ThreadPoolExecutor(1, thread_name_prefix="tbot_otel_probe")
        self._probe: asyncio.Future[None] | None = None
        self._probed_at = float("-inf")
        self._sweeping: asyncio.Task[None] | None = None
        self._parent_pid = os.getppid()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start. The server calls it in the worker (RSGI)."""
        # The exporting thread would wait 5 ms each time that it needs the interpreter.
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        # Calls create few cycles; collecting every 700 allocations slows down as they queue.
        gc.freeze()
        gc.set_threshold(50_000)
        self._sweeping = loop.create_task(self._sweep())

    def __rsgi_del__(self, _: asyncio.AbstractEventLoop) -> None:
        """Stop. The server calls it after the last call (RSGI)."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._exporter.shutdown()
        self._metrics.shutdown()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Respond to a request (RSGI)."""
        path = scope.path
        if path == "/healthz":
            response = _json_response(200, {"status": "ok"})
        elif path == "/readyz":
            problem = await self._find_problem()
            response = _json_response(503 if problem else 200, {"status": problem or "ok"})
        else:
            started_at = time.monotonic()
            self._metrics.record_call()
            status, reason = 499, "disconnected"
            try:
                result = await self._handle_call(scope, protocol)
                if isinstance(result, Problem):
                    reason, response = result.reason, _error_response(result)
                else:
                    reason, response = "" if result[0] == 200 else str(result[0]), result
                status = response[0]
            except (ProtocolClosed, ProtocolError):
                return
            finally:
                self._metrics.record_response(status, reason, time.monotonic() - started_at)
        protocol.response_bytes(*response)

    async def _handle_call(self, scope: Scope, protocol: HTTPProtocol) -> "_Response | Problem":
        if scope.path not in self._paths or scope.method != "POST":
            # Refused without its body, so that callers without the secret occupy nothing.
            return self._call_runtime(scope, b"")
        body = await self._read_body(scope, protocol)
        if isinstance(body, Problem):
            return body
        if len(self._deadlines) >= MAX_CONCURRENT_CALLS:
            return TOO_MANY_CALLS
        if self._committer.estimate_seconds() > RESPONSE_TIMEOUT_SECONDS:
            return COLLECTOR_TOO_SLOW
        response = self._call_runtime(scope, body)
        if self._received is None:
            return response
        (report, timeout_ms), self._received = self._received, None
        return await self._deliver(report, timeout_ms) or response

    async def _read_body(self, scope: Scope, protocol: HTTPProtocol) -> bytes | Problem:
        length = scope.headers.get("content-length")
        # int() refuses text that is too long.
        if length is not None and (len(length) > 20 or int(length) > MAX_REQUEST_BYTES):
            return TOO_LARGE
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server runs each request in a task
        self._unread[task] = time.monotonic() + BODY_TIMEOUT_SECONDS
        if len(self._unread) > MAX_UNREAD_CALLS:
            self._end_unread(next(iter(self._unread)), TOO_MANY_UNREAD)
        try:
            if length is not None:
                return await protocol()
            body = b""
            # A broken body ends like a whole one. That makes no false report: the start is one
            # field of the message, with its length.
            async for part in protocol:
                body += part
                if len(body) > MAX_REQUEST_BYTES:
                    return TOO_LARGE
        except asyncio.CancelledError:
            problem = self._ended.pop(task, None)
            if problem is None:
                raise
            task.uncancel()
            return problem
        finally:
            self._unread.pop(task, None)
        return body

    def _end_unread(self, task: asyncio.Task[Any], problem: Problem) -> None:
        del self._unread[task]
        self._ended[task] = problem
        task.cancel()

    def _call_runtime(self, scope: Scope, body: bytes) -> "_Response":
        """Let the runtime parse a call. It calls `_handle_report` before this returns."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": scope.method,
            "PATH_INFO": scope.path,
            "SCRIPT_NAME": "",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            # Unexpected errors are written here. They can repeat a report.
            "wsgi.errors": io.StringIO(),
        }
        headers = scope.headers
        for name, variable in _HEADERS.items():
            if (value := headers.get(name)) is not None:
                environ[variable] = value
        start: list[Any] = []
        content = b"".join(
            self._connect(environ, cast("StartResponse", lambda *a: start.extend(a)))
        )
        return int(start[0][:3]), start[1], content

    def _handle_report(self, request: Request, context: Context) -> None:
        report = parse_report(request, time.time_ns(), self._allowed_helpers)
        self._received = report, context.timeout_ms

    async def _deliver(self, report: Report, timeout_ms: float | None) -> Problem | None:
        """Wait until the Collector has the report, and return the problem if it has not."""
        seconds, problem = RESPONSE_TIMEOUT_SECONDS, COLLECTOR_TIMEOUT
        if timeout_ms is not None and timeout_ms < seconds * 1000:
            seconds, problem = timeout_ms / 1000, CALL_TIMEOUT
        if seconds <= 0:
            return problem
        result = self._committer.commit(report)
        self._deadlines[result] = time.monotonic() + seconds, problem
        try:
            return await result
        finally:
            del self._deadlines[result]

    async def _find_problem(self) -> str | None:
        """Return why the Collector does not accept exports; it is asked once a second at most."""
        if self._exporter.problem is None:
            return None
        loop = asyncio.get_running_loop()
        if self._probe is None and time.monotonic() - self._probed_at >= PROBE_INTERVAL_SECONDS:
            self._probe = loop.run_in_executor(self._probe_thread, self._exporter.probe)
            self._probe.add_done_callback(self._finish_probe)
        if self._probe is not None:
            # A lookup of the Collector's name has no limit.
            await asyncio.wait([self._probe], timeout=PROBE_TIMEOUT_SECONDS)
        return self._exporter.problem

    def _finish_probe(self, _: object) -> None:
        self._probe = None
        self._probed_at = time.monotonic()

    async def _sweep(self) -> None:
        """Expire calls; a timer for each call would cost more."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_SECONDS)
            self._expire_calls()
            if os.getppid() != self._parent_pid:
                # The main process was killed. Its successor needs the port.
                os.kill(os.getpid(), signal.SIGTERM)

    def _expire_calls(self) -> None:
        now = time.monotonic()
        for task, deadline in list(self._unread.items()):
            if deadline <= now:
                self._end_unread(task, BODY_TIMEOUT)
        for result, (deadline, problem) in self._deadlines.items():
            if deadline <= now and not result.done():
                result.set_result(problem)
        self._committer.drop_abandoned()


def _error_response(problem: Problem) -> "_Response":
    content = {"code": problem.code.value, "message": problem.message}
    return _json_response(HTTP_STATUSES[problem.code], content)


def _json_response(status: int, content: Mapping[str, str]) -> "_Response":
    return status, [("content-type", "application/json")], json.dumps(content).encode()
