"""The application of a relay's worker process, between the HTTP server and the Connect runtime."""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from granian.rsgi import (  # type: ignore[attr-defined]  # it exports them without a list
    HTTPProtocol,
    ProtocolClosed,
    ProtocolError,
    Scope,
)

from tbot_otel.connect import PATH, RESPONSE_TIMEOUT_SECONDS, Report
from tbot_otel.relay.bodies import BodyReader
from tbot_otel.relay.calls import CallParser, Response, error_response, json_response
from tbot_otel.relay.committer import Committer
from tbot_otel.relay.exporting import ReportExporter
from tbot_otel.relay.handshakes import HandshakeHandler
from tbot_otel.relay.log import Tally
from tbot_otel.relay.metrics import WorkerMetrics
from tbot_otel.relay.problems import (
    CALL_TIMEOUT,
    COLLECTOR_TIMEOUT,
    COLLECTOR_TOO_SLOW,
    TOO_MANY_CALLS,
    Problem,
)
from tbot_otel.relay.readiness import Readiness

if TYPE_CHECKING:
    from tbot_otel.relay.committer import Result
    from tbot_otel.relay.log import ChangeLog

MAX_CONCURRENT_CALLS = 7168
"""The most calls in a worker that wait for their export. One more is refused at once.

That is most of its connections. The rest is for health checks and new calls.
"""

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long the event loop keeps the interpreter while the exporting thread waits for it."""

UNKNOWN_SECRET = "unknown_secret"  # noqa: S105 - not a secret
"""The reason of a call whose path has no secret, or an unknown one."""

MIN_AGE_SECONDS = 10.0
"""The age from which a worker can end itself. The server ends if one dies within 5.5 seconds."""

_SWEEP_INTERVAL_SECONDS = 0.5
_CLOSE = ("connection", "close")
_OK = json_response(200, {"status": "ok"})
# The cause can name the Collector, so it is only in the log.
_NOT_READY = json_response(503, {"status": "not ready"})

_logger = logging.getLogger("tbot_otel.relay")


class AppSettings(NamedTuple):
    """What a worker process gets from the main process.

    Attributes:
        collector_log: Logs whether the Collector accepts exports.
        metrics_log: Logs whether metrics are exported.
        prefixes: The paths that can precede that of a call: ``/`` and a secret, or empty.
        allowed_helpers: See `policy.decide`.
        listening: The line to log when calls are accepted.
    """

    collector_log: "ChangeLog"
    metrics_log: "ChangeLog"
    prefixes: Sequence[str]
    allowed_helpers: Collection[str]
    listening: str


class RelayApp:
    """Responds to tbots, and to health checks.

    A connection stays open only after an acknowledgment. Otherwise strangers could keep it, and
    never read.
    """

    def __init__(self, settings: AppSettings) -> None:
        self._listening = settings.listening
        self._tally = Tally()
        self._metrics = WorkerMetrics(settings.metrics_log)
        # Fail at startup on invalid configuration.
        self._exporter = ReportExporter(self._metrics, settings.collector_log)
        self._committer = Committer(self._exporter.export)
        self._readiness = Readiness(self._exporter)
        self._metrics.observe(
            count_waiting=lambda: len(self._committer),
            is_ready=lambda: self._exporter.problem is None,
        )
        self._bodies = BodyReader()
        self._parser = CallParser(settings.prefixes, settings.allowed_helpers)
        # The line of each secret; no secret has none.
        self._lines = {
            f"{prefix}{PATH}": number if prefix else None
            for number, prefix in reversed([*enumerate(settings.prefixes, 1)])
        }
        self._deadlines: dict[Result, tuple[float, Problem]] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._parent_pid = os.getppid()
        self._handshakes = HandshakeHandler(self._metrics, self._tally)
        logging.getLogger("_granian.workers").addHandler(self._handshakes)
        self._started_at = time.monotonic()

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
        reason = "health check"
        if path == "/healthz":
            response = _OK
        elif path == "/readyz":
            response = _OK if await self._readiness.is_ready() else _NOT_READY
        else:
            started_at = time.monotonic()
            self._metrics.record_call()
            status, reason = 499, "disconnected"
            try:
                response, reason = await self._handle_call(scope, protocol)
                status = response.status
            except (ProtocolClosed, ProtocolError):
                return
            finally:
                seconds = time.monotonic() - started_at
                self._metrics.record_response(status, reason, seconds, self._lines.get(path))
        headers = [*response.headers, _CLOSE] if reason else response.headers
        protocol.response_bytes(response.status, headers, response.body)

    async def _handle_call(self, scope: Scope, protocol: HTTPProtocol) -> tuple[Response, str]:
        """Return the response, and why the call is not acknowledged; empty if it is."""
        if scope.path not in self._lines or scope.method != "POST":
            # Refused without its body, so that callers without the secret occupy nothing.
            response, *_ = self._parser.parse(scope, b"")
            if response.status == 404 and scope.path.endswith(PATH):
                self._tally.add("calls with an unknown secret")
                return response, UNKNOWN_SECRET
            return response, str(response.status)
        body = await self._bodies.read(scope, protocol)
        if isinstance(body, Problem):
            return error_response(body), body.reason
        if len(self._deadlines) >= MAX_CONCURRENT_CALLS:
            return error_response(TOO_MANY_CALLS), TOO_MANY_CALLS.reason
        if self._committer.estimate_seconds() > RESPONSE_TIMEOUT_SECONDS:
            return error_response(COLLECTOR_TOO_SLOW), COLLECTOR_TOO_SLOW.reason
        response, report, timeout_ms = self._parser.parse(scope, body)
        if report is None:
            return response, str(response.status)
        problem = await self._deliver(report, timeout_ms)
        return (error_response(problem), problem.reason) if problem else (response, "")

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

    async def _sweep(self) -> None:
        """Expire calls; a timer for each call would cost more."""
        # The server listens before it runs the loop.
        _logger.info(self._listening)
        while True:
            self._readiness.probe_if_idle()
            await asyncio.sleep(_SWEEP_INTERVAL_SECONDS)
            self._bodies.expire()
            self._expire_calls()
            self._tally.log()
            self._end_if_stuck()
            if os.getppid() != self._parent_pid:
                # The main process was killed. Its successor needs the port.
                os.kill(os.getpid(), signal.SIGTERM)

    def _end_if_stuck(self) -> None:
        """End this worker if it can accept no connection anymore. The server starts another."""
        age = time.monotonic() - self._started_at
        if self._handshakes.is_stuck and not self._deadlines and age >= MIN_AGE_SECONDS:
            _logger.error("there are no file descriptors left, so this worker is replaced")
            # It does not stop on SIGTERM then.
            os.kill(os.getpid(), signal.SIGKILL)

    def _expire_calls(self) -> None:
        now = time.monotonic()
        for result, (deadline, problem) in self._deadlines.items():
            if deadline <= now and not result.done():
                result.set_result(problem)
        self._committer.drop_abandoned()
