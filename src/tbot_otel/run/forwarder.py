"""The forwarder: receives tbot's report, sends it to the Collector, and exits.

It responds to tbot when the Collector has accepted the report, or when it was sent and responses
are not observed, or with ``unavailable`` if that takes too long. Then it goes on trying, because
the Collector may start later than tbot. HTTP is `server`'s work, the protocol is `connect`'s,
sending is `sender`'s. Slow imports come after the log is set up, so that a failed import is logged.
"""

import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from _thread import start_new_thread

from tbot_otel.otlp.quiet import silence_grpc
from tbot_otel.otlp.settings import printable_target, read_settings
from tbot_otel.run.delivery import NEVER, Delivery
from tbot_otel.run.waker import Waker
from tbot_otel.session import Start, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tbot_otel.connect import Context, Report, Request
    from tbot_otel.otlp.exporter import LazyExporter

IDLE_TIMEOUT_SECONDS = 600.0
"""How long the forwarder waits for a report, and how long it tries to deliver one."""
LINGER_SECONDS = 1.0
"""How long it still responds after a delivered report, or after tbot has exited."""

# CPython waits forever for a thread that has no memory to start with.
_STARTUP_TIMEOUT_SECONDS = 60
_MAX_OOM_SCORE_ADJ = "1000"
_EXPECTED_LEVELS = "debug, info, warn, error or none"

_logger = logging.getLogger("tbot_otel.run")


def forward(
    listener_fd: int,
    prefix: str,
    *,
    command_pid: int,
    forked_at: float,
    log_fd: int | None = None,
    record_fd: int | None = None,
    dry_run: bool = False,
    allowed_helpers: "Sequence[str]" = (),
) -> None:
    """Respond to tbot until nothing is left to do.

    Args:
        listener_fd: The descriptor of a listening TCP socket.
        prefix: The path of the address that tbot was given.
        command_pid: The process id of tbot.
        forked_at: When this process was forked, on the monotonic clock in seconds.
        log_fd: The descriptor of the log file; None for no log.
        record_fd: The descriptor of the file that exports are appended to; None for no file.
        dry_run: Whether nothing is sent.
        allowed_helpers: See `policy.decide`.
    """
    _limit_startup()
    _raise_oom_score()
    silence_grpc()
    # waitress writes to it even where this process was started without one.
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if log_fd is not None:
        _configure_log(log_fd)
    # This process is short-lived, and imports are most of its work.
    gc.disable()
    try:
        # First: later, the process id may be another process's.
        waker = Waker(command_pid)
        forwarder = _Forwarder(
            socket.socket(fileno=listener_fd),
            prefix,
            forked_at,
            waker,
            record_fd=record_fd,
            dry_run=dry_run,
            allowed_helpers=allowed_helpers,
        )
        signal.alarm(0)
        forwarder.run_until_done()
    except Exception as error:
        debug = _logger.isEnabledFor(logging.DEBUG)
        _logger.exception(
            "tbot's start was not delivered (%s)", type(error).__name__, exc_info=debug
        )


def _limit_startup() -> None:
    """Let the kernel end this process if it does not start up, as when memory is short."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.alarm(_STARTUP_TIMEOUT_SECONDS)


def _raise_oom_score() -> None:
    """Let the kernel kill this process before tbot when memory is short. Only Linux can."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_MAX_OOM_SCORE_ADJ)


def _configure_log(log_fd: int) -> None:
    handler = logging.StreamHandler(os.fdopen(log_fd, "w", encoding="utf-8"))
    line = "%(asctime)s tbot-otel run: %(message)s"
    handler.setFormatter(_Formatter(line, "%Y-%m-%dT%H:%M:%S%z"))
    handler.addFilter(_NewLines())
    package_logger = logging.getLogger("tbot_otel")
    package_logger.addHandler(handler)
    package_logger.propagate = False
    levels = {**logging.getLevelNamesMapping(), "NONE": logging.CRITICAL + 1}
    # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    level = os.environ.get("OTEL_LOG_LEVEL") or "INFO"
    package_logger.setLevel(levels.get(level.upper(), logging.INFO))
    if level.upper() not in levels:
        _logger.warning("OTEL_LOG_LEVEL: expected %s", _EXPECTED_LEVELS)


class _Formatter(logging.Formatter):
    """Keeps the line whose traceback cannot be formatted, as when its modules are broken."""

    def formatException(self, exc_info: "Any") -> str:  # noqa: N802 - the base class's name
        try:
            return super().formatException(exc_info)
        except Exception as error:  # noqa: BLE001 - it can raise anything
            return f"(the traceback cannot be formatted: {type(error).__name__})"


class _NewLines(logging.Filter):
    """Hides failed exports, which the line about the report names, and an attempt's repetitions."""

    def __init__(self) -> None:
        super().__init__("tbot_otel")
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        is_repeated = record.name == self.name and line in self._seen
        self._seen.add(line)
        return record.name != "tbot_otel.export" and not is_repeated


class _Forwarder:
    """Responds to tbot's calls on the server's threads, from its construction on."""

    def __init__(
        self,
        listener: socket.socket,
        prefix: str,
        forked_at: float,
        waker: Waker,
        *,
        record_fd: int | None,
        dry_run: bool,
        allowed_helpers: "Sequence[str]",
    ) -> None:
        # Import now what the first record needs.
        from tbot_otel import connect
        from tbot_otel.otlp import send
        from tbot_otel.pipeline import record  # noqa: F401
        from tbot_otel.pipeline.recording import RecordFile
        from tbot_otel.run.server import Server

        if not dry_run:
            send.import_exporter_module()
        self._target = printable_target()
        self._dry_run = dry_run
        self._allowed_helpers = allowed_helpers
        # The statuses of a report that tbot gets 200 for.
        self._accepted = {Status.DELIVERED, Status.UNOBSERVED}
        if dry_run:
            self._accepted.add(Status.REFUSED)
        self._record_file = None if record_fd is None else RecordFile(record_fd)
        self._waker = waker
        self._lock = threading.Lock()
        self._active_calls = 0
        self._last_request_at = time.monotonic()
        self._delivery: Delivery | None = None
        self._exporter: LazyExporter | None = None
        self._has_logged_delivery = False
        self._application = connect.wsgi_application(self._handle_report, [prefix])
        self._prefix = prefix
        self._server = Server(self._respond, listener, forked_at, waker.wake)
        # Not a `threading.Thread`: that waits for the thread to start.
        start_new_thread(self._server.run, ())

    def _build_exporter(self) -> "LazyExporter":
        from tbot_otel.pipeline.recording import RecordingExporter

        # Only the first attempt is recorded.
        file, self._record_file = self._record_file, None
        self._exporter = RecordingExporter(read_settings, file, dry_run=self._dry_run)
        return self._exporter

    def _respond(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        # Requests without the secret path are not tbot's.
        if not environ["PATH_INFO"].startswith(self._prefix):
            return self._application(environ, start_response)
        with self._lock:
            self._active_calls += 1
        try:
            return self._respond_to_tbot(environ, start_response)
        finally:
            with self._lock:
                self._active_calls -= 1
                self._last_request_at = time.monotonic()
            self._waker.wake()

    def _respond_to_tbot(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Respond to a request, and log the outcome."""
        response_status = ""

        def start(status: str, *rest: "Any") -> "Any":
            nonlocal response_status
            response_status = status
            return start_response(status, *rest)

        body = list(self._application(environ, start))
        if response_status.startswith("200 "):
            self._log_delivery()
        else:
            # Connect's errors are JSON; HTTP's have no body.
            problem = json.loads(b"".join(body) or "{}").get("message", response_status)
            _logger.warning("tbot's start was not delivered to %s: %s", self._target, problem)
        return body

    def _log_delivery(self) -> None:
        if self._delivery is not None:
            sentence = self._delivery.attempt.outcome.describe(self._target)
            _logger.info("tbot's start was %s", sentence)
            self._has_logged_delivery = True

    def _handle_report(self, request: "Request", context: "Context") -> None:
        from tbot_otel import connect
        from tbot_otel.otlp.responses import TIMED_OUT

        waiting_since = self._server.waiting_since(context.client_address)
        report = connect.parse_report(request, time.time_ns(), self._allowed_helpers)
        for name, reason in report.permitted.changes:
            _logger.info("%s: %s", name, reason.value)
        deadline = waiting_since + connect.RESPONSE_TIMEOUT_SECONDS
        outcome = self._submit(report).wait(deadline - time.monotonic())
        if outcome.status is Status.PENDING:
            # What an attempt ended with is the cause, even if another one has not ended yet.
            problem = self._exporter and self._exporter.last_problem
            raise connect.unavailable_error(problem or TIMED_OUT)
        if outcome.status not in self._accepted:
            raise connect.unavailable_error(outcome.reason)

    def _submit(self, report: "Report") -> Start:
        """Submit a report, unless it is being sent, and return the attempt to wait for.

        Raises:
            ConnectError: Another start was reported before.
        """
        from tbot_otel.connect import another_start_error

        with self._lock:
            delivery = self._delivery
            if delivery is None:
                delivery = self._delivery = Delivery(report, self._waker, self._build_exporter)
            elif delivery.session_id != report.session_id:
                raise another_start_error()
            elif delivery.attempt.outcome.status is Status.FAILED:
                delivery.start_attempt()
            return delivery.attempt

    def run_until_done(self) -> None:
        """Return when nothing is left to do."""
        done_at = NEVER
        while True:
            if self._server.fatal_error is not None:
                raise self._server.fatal_error
            now = time.monotonic()
            has_delivered = self._has_delivered()
            if done_at == NEVER and (self._waker.command_has_exited or has_delivered):
                done_at = now + LINGER_SECONDS
            end_at = retry_at = NEVER
            with self._lock:
                if not self._active_calls:
                    idle_since = self._last_request_at
                    end_at = min(
                        max(done_at, idle_since + LINGER_SECONDS),
                        idle_since + IDLE_TIMEOUT_SECONDS,
                    )
                if self._delivery is not None:
                    self._delivery.retry_if_due()
                    retry_at = self._delivery.retry_at
            # After the response to tbot.
            if has_delivered and end_at < NEVER and not self._has_logged_delivery:
                self._log_delivery()
            if now >= end_at:
                break
            self._waker.wait(min(end_at, retry_at, now + IDLE_TIMEOUT_SECONDS) - now)
        if self._delivery is None:
            _logger.info("tbot did not report a start")

    def _has_delivered(self) -> bool:
        delivery = self._delivery
        return delivery is not None and delivery.attempt.outcome.status in self._accepted
