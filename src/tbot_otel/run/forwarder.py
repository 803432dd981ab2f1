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
import select
import socket
import sys
import threading
import time

from tbot_otel import sender
from tbot_otel.events import StartEvent
from tbot_otel.otlp import environment
from tbot_otel.session import Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tbot_otel.connect import Context, Report, Request
    from tbot_otel.pipeline.exporter import TbotLogExporter

IDLE_TIMEOUT_SECONDS = 600.0
"""How long the forwarder waits for a report, and how long it tries to deliver one."""
LINGER_SECONDS = 1.0
"""How long it still responds after a delivered report, or after tbot has exited."""

_POLL_INTERVAL_SECONDS = 0.1
# The pause after a failed attempt. It doubles each time, up to the maximum.
_MIN_RETRY_SECONDS = 5.0
_MAX_RETRY_SECONDS = 30.0
_NO_TIME = float("inf")
_MAX_OOM_SCORE_ADJ = "1000"
_EXPECTED_LEVELS = "debug, info, warn, error or none"

# For a report that tbot gets 200 for.
_LINES = {
    Status.DELIVERED: "tbot's start was delivered to %s",
    Status.UNOBSERVED: "tbot's start was sent to %s; the response was not observed",
    Status.REFUSED: "tbot's start was not sent to %s: dry run",
}

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
    _raise_oom_score()
    # waitress writes to it even where this process was started without one.
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if log_fd is not None:
        _configure_log(log_fd)
    # This process is short-lived, and imports are most of its work.
    gc.disable()
    try:
        # Opened first: later, the process id may be another process's.
        command = _WatchedProcess(command_pid)
        forwarder = _Forwarder(
            socket.socket(fileno=listener_fd),
            prefix,
            forked_at,
            record_fd,
            dry_run=dry_run,
            allowed_helpers=allowed_helpers,
        )
        forwarder.run_until_done(command)
    except Exception as error:
        debug = _logger.isEnabledFor(logging.DEBUG)
        _logger.exception(
            "tbot's start was not delivered (%s)", type(error).__name__, exc_info=debug
        )


def _raise_oom_score() -> None:
    """Let the kernel kill this process before tbot when memory is short. Only Linux can."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_MAX_OOM_SCORE_ADJ)


def _configure_log(log_fd: int) -> None:
    handler = logging.StreamHandler(os.fdopen(log_fd, "w", encoding="utf-8"))
    line = "%(asctime)s tbot-otel run: %(message)s"
    handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S%z"))
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


class _Delivery:
    """A start on its way to the Collector, in one attempt after another.

    An attempt is an export, with the retries of the official exporter.

    Args:
        report: tbot's report of the start.
    """

    def __init__(self, report: "Report") -> None:
        self._event = StartEvent.from_attributes(report.attributes)
        self._started = report.timestamp
        self._retry_seconds = _MIN_RETRY_SECONDS
        self._retry_at = _NO_TIME
        self.session_id: str = report.session_id
        self.session: Session = self.start_attempt()

    def start_attempt(self) -> Session:
        """Start an attempt, and return its session."""
        self._retry_at = _NO_TIME
        self.session = Session.from_report(self.session_id, self._started)
        try:
            sender.submit(self._event, self.session)
        except Exception as error:  # noqa: BLE001 - the system may refuse another thread
            self.session.fail(error)
        return self.session

    def has_failed(self) -> bool:
        """Return whether the last attempt has failed."""
        return self.session.flush(0).status is Status.FAILED

    def retry_if_due(self) -> None:
        """Start another attempt some time after one that failed for a temporary reason."""
        if not self.session.flush(0).can_retry:
            return
        now = time.monotonic()
        if self._retry_at == _NO_TIME:
            self._retry_at = now + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _MAX_RETRY_SECONDS)
        elif now >= self._retry_at:
            self.start_attempt()


class _Forwarder:
    """Responds to tbot's calls on the server's threads, from its construction on."""

    def __init__(
        self,
        listener: socket.socket,
        prefix: str,
        forked_at: float,
        record_fd: int | None,
        *,
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
        self._target = f"{environment.printable_endpoint()} ({environment.protocol()})"
        self._dry_run = dry_run
        self._allowed_helpers = allowed_helpers
        # The statuses of a report that tbot gets 200 for.
        self._accepted = {Status.DELIVERED, Status.UNOBSERVED}
        if dry_run:
            self._accepted.add(Status.REFUSED)
        self._record_file = None if record_fd is None else RecordFile(record_fd)
        sender.use_exporter(self._build_exporter)
        self._lock = threading.Lock()
        self._active_calls = 0
        self._last_request_at = time.monotonic()
        self._delivery: _Delivery | None = None
        self._has_logged_delivery = False
        self._application = connect.wsgi_application(self._handle_report, [prefix])
        self._prefix = prefix
        self._server = Server(self._respond, listener, forked_at)
        threading.Thread(target=self._server.run, name="tbot_otel", daemon=True).start()

    def _build_exporter(self) -> "TbotLogExporter":
        from tbot_otel.pipeline.recording import RecordingExporter

        # Only the first attempt is recorded.
        file, self._record_file = self._record_file, None
        return RecordingExporter(file, dry_run=self._dry_run, allowed_helpers=self._allowed_helpers)

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
            status = self._delivery.session.flush(0).status
            _logger.info(_LINES[status], self._target)
            self._has_logged_delivery = True

    def _handle_report(self, request: "Request", context: "Context") -> None:
        from tbot_otel import connect
        from tbot_otel.otlp.responses import TIMED_OUT

        waiting_since = self._server.waiting_since(context.client_address)
        report = connect.parse_report(request, time.time_ns(), self._allowed_helpers)
        for name, reason in report.changes:
            _logger.info("%s: %s", name, reason.value)
        session = self._submit(report)
        deadline = waiting_since + connect.RESPONSE_TIMEOUT_SECONDS
        outcome = session.flush(max(0.0, deadline - time.monotonic()))
        if outcome.status is Status.PENDING:
            raise connect.unavailable_error(TIMED_OUT)
        if outcome.status not in self._accepted:
            raise connect.unavailable_error(outcome.reason)

    def _submit(self, report: "Report") -> Session:
        """Submit a report, unless it is being sent, and return the session to wait for.

        Raises:
            ConnectError: Another start was reported before.
        """
        from tbot_otel.connect import another_start_error

        with self._lock:
            delivery = self._delivery
            if delivery is None:
                delivery = self._delivery = _Delivery(report)
            elif delivery.session_id != report.session_id:
                raise another_start_error()
            elif delivery.has_failed():
                delivery.start_attempt()
            return delivery.session

    def run_until_done(self, command: "_WatchedProcess") -> None:
        """Return when nothing is left to do."""
        done_at = _NO_TIME
        while True:
            if self._server.fatal_error is not None:
                raise self._server.fatal_error
            now = time.monotonic()
            has_delivered = self._has_delivered()
            if done_at == _NO_TIME and (command.has_exited() or has_delivered):
                done_at = now + LINGER_SECONDS
            with self._lock:
                idle_seconds = 0.0 if self._active_calls else now - self._last_request_at
                if self._delivery is not None:
                    self._delivery.retry_if_due()
            # After the response to tbot.
            if has_delivered and idle_seconds and not self._has_logged_delivery:
                self._log_delivery()
            if idle_seconds >= LINGER_SECONDS and now >= done_at:
                break
            if idle_seconds > IDLE_TIMEOUT_SECONDS:
                break
            time.sleep(_POLL_INTERVAL_SECONDS)
        if self._delivery is None:
            _logger.info("tbot did not report a start")

    def _has_delivered(self) -> bool:
        delivery = self._delivery
        return delivery is not None and delivery.session.flush(0).status in self._accepted


class _WatchedProcess:
    """Detects the exit of a process that is not a child of this one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd: int | None = None
        # Only Linux has pidfd_open, and it fails if the process has exited.
        with contextlib.suppress(AttributeError, OSError):
            self._fd = os.pidfd_open(pid)

    def has_exited(self) -> bool:
        """Return whether the process has exited."""
        if self._fd is not None:
            return bool(select.select([self._fd], [], [], 0)[0])
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            # It runs as another user now.
            pass
        return False
