"""The forwarder: receives tbot's report, sends it to the Collector, and exits.

It responds to tbot when the Collector has accepted the report, or when it was sent and responses
are not observed, or with ``unavailable`` if that takes too long. HTTP is waitress's work, the
protocol is `connect`'s, sending is `sender`'s. Slow imports come after the log is set up, so that a
failed import is logged.
"""

import contextlib
import errno
import gc
import json
import logging
import os
import resource
import select
import socket
import sys
import threading
import time
from functools import partial

from tbot_otel import sender
from tbot_otel.events import StartEvent
from tbot_otel.otlp import environment
from tbot_otel.session import Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tbot_otel.connect import Context, Request

IDLE_TIMEOUT_SECONDS = 600.0
"""How long the forwarder waits for a report."""
LINGER_SECONDS = 1.0
"""How long it still responds after a delivered report, or after tbot has exited."""

_POLL_INTERVAL_SECONDS = 0.1
# Larger than `connect` allows, so that it can respond with its own error. Together with the
# connection limit, it bounds the memory that others on this machine can make the forwarder use.
_MAX_BODY_BYTES = 2**17
_MAX_HEADER_BYTES = 2**14
_MAX_CONNECTIONS = 256
_NO_TIME = float("inf")

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
    # waitress writes to it even where this process was started without one.
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if log_fd is not None:
        _configure_log(log_fd)
    # This process is short-lived, and imports are most of its work.
    gc.disable()
    try:
        # Opened first: later, the process id may be another process's.
        command = _WatchedProcess(command_pid)
        listener = _Listener(listener_fd, forked_at)
        forwarder = _Forwarder(
            listener, prefix, record_fd, dry_run=dry_run, allowed_helpers=allowed_helpers
        )
        forwarder.run_until_done(command)
    except Exception as error:
        debug = _logger.isEnabledFor(logging.DEBUG)
        _logger.exception(
            "tbot's start was not delivered (%s)", type(error).__name__, exc_info=debug
        )


def _configure_log(log_fd: int) -> None:
    handler = logging.StreamHandler(os.fdopen(log_fd, "w", encoding="utf-8"))
    line = "%(asctime)s tbot-otel run: %(message)s"
    handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S%z"))
    # Failed exports are in the line about the report.
    handler.addFilter(lambda record: record.name != "tbot_otel.export")
    package_logger = logging.getLogger("tbot_otel")
    package_logger.addHandler(handler)
    package_logger.propagate = False
    levels = {**logging.getLevelNamesMapping(), "NONE": logging.CRITICAL + 1}
    # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    package_logger.setLevel(levels.get(os.environ.get("OTEL_LOG_LEVEL", "").upper(), logging.INFO))


class _Listener(socket.socket):
    """A listening socket that records since when each connection has been waiting."""

    def __init__(self, fd: int, forked_at: float) -> None:
        super().__init__(fileno=fd)
        self._forked_at = forked_at
        self._ready_at = _NO_TIME
        self._waiting_since: dict[str, float] = {}
        self.fatal_error: OSError | None = None

    def accept(self) -> "tuple[socket.socket, Any]":
        try:
            connection, address = super().accept()
        except OSError as error:
            # The server would retry forever.
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.fatal_error = error
            raise
        now = time.monotonic()
        # A connection accepted right at the start may have been waiting since the fork.
        since = self._forked_at if now - self._ready_at < LINGER_SECONDS else now
        self._waiting_since["{}:{}".format(*address)] = since
        return connection, address

    def mark_ready(self) -> None:
        """Record that connections are accepted immediately from now on."""
        self._ready_at = time.monotonic()

    def pop_waiting_since(self, client: str | None) -> float:
        """Return since when a client has been waiting, on the monotonic clock in seconds."""
        return self._waiting_since.pop(client or "", time.monotonic())


class _Forwarder:
    """Responds to tbot's calls on the server's threads, from its construction on."""

    def __init__(
        self,
        listener: _Listener,
        prefix: str,
        record_fd: int | None,
        *,
        dry_run: bool,
        allowed_helpers: "Sequence[str]",
    ) -> None:
        from waitress.server import create_server

        # Import now what the first record needs.
        from tbot_otel import connect, record  # noqa: F401
        from tbot_otel.otlp import send
        from tbot_otel.recording import RecordFile, RecordingExporter

        if not dry_run:
            send.import_exporter_module()
        self._target = f"{environment.endpoint()} ({environment.protocol()})"
        self._listener = listener
        self._allowed_helpers = allowed_helpers
        # The statuses of a report that tbot gets 200 for.
        self._accepted = {Status.DELIVERED, Status.UNOBSERVED}
        if dry_run:
            self._accepted.add(Status.REFUSED)
        file = None if record_fd is None else RecordFile(record_fd)
        sender.use_exporter(
            partial(RecordingExporter, file, dry_run=dry_run, allowed_helpers=allowed_helpers)
        )
        self._lock = threading.Lock()
        self._active_calls = 0
        self._last_request_at = time.monotonic()
        self._thread = threading.local()
        self._sessions: list[Session] = []
        max_fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._application = connect.wsgi_application(self._handle_report, prefix)
        self._prefix = prefix
        server = create_server(
            self._respond,
            sockets=[listener],
            threads=4,
            connection_limit=min(_MAX_CONNECTIONS, max_fds // 2),
            channel_timeout=int(connect.RESPONSE_TIMEOUT_SECONDS),
            cleanup_interval=1,
            max_request_header_size=_MAX_HEADER_BYTES,
            max_request_body_size=_MAX_BODY_BYTES,
            # High enough that no body is written to a file.
            inbuf_overflow=2 * _MAX_BODY_BYTES,
            asyncore_use_poll=True,
            ident="",
        )
        listener.mark_ready()
        threading.Thread(target=server.run, name="tbot_otel", daemon=True).start()

    def _respond(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Respond to a request, and log the outcome."""
        response_status = ""

        def start(status: str, *rest: "Any") -> "Any":
            nonlocal response_status
            response_status = status
            return start_response(status, *rest)

        body = list(self._application(environ, start))
        # Requests without the secret path are not tbot's.
        if environ["PATH_INFO"].startswith(self._prefix):
            if response_status.startswith("200 "):
                _logger.info(_LINES[self._thread.status], self._target)
            else:
                # Connect's errors are JSON; HTTP's have no body.
                problem = json.loads(b"".join(body) or "{}").get("message", response_status)
                _logger.warning("tbot's start was not delivered to %s: %s", self._target, problem)
        return body

    def _handle_report(self, request: "Request", context: "Context") -> None:
        from tbot_otel.connect import RESPONSE_TIMEOUT_SECONDS

        waiting_since = self._listener.pop_waiting_since(context.client_address)
        with self._lock:
            self._active_calls += 1
        try:
            self._deliver(request, waiting_since + RESPONSE_TIMEOUT_SECONDS)
        finally:
            with self._lock:
                self._active_calls -= 1
                self._last_request_at = time.monotonic()

    def _deliver(self, request: "Request", deadline: float) -> None:
        from tbot_otel.connect import parse_report, unavailable_error

        report = parse_report(request, time.time_ns(), self._allowed_helpers)
        for name, reason in report.left_out:
            _logger.info("%s: %s", name, reason.value)
        session = Session.from_report(report.session_id, report.timestamp)
        self._sessions.append(session)
        try:
            event = StartEvent.from_attributes(report.attributes)
            sender.submit(event, session)
        except Exception as error:  # noqa: BLE001 - the system may refuse another thread
            session.fail(error)
        outcome = session.flush(max(0.0, deadline - time.monotonic()))
        if outcome.status is Status.PENDING:
            raise unavailable_error("the Collector did not respond in time")
        self._thread.status = outcome.status
        if outcome.status not in self._accepted:
            raise unavailable_error(outcome.reason)

    def run_until_done(self, command: "_WatchedProcess") -> None:
        """Return when nothing is left to do."""
        done_at = _NO_TIME
        while True:
            if self._listener.fatal_error is not None:
                raise self._listener.fatal_error
            now = time.monotonic()
            if done_at == _NO_TIME and (command.has_exited() or self._has_delivered()):
                done_at = now + LINGER_SECONDS
            with self._lock:
                idle_seconds = 0.0 if self._active_calls else now - self._last_request_at
            if idle_seconds >= LINGER_SECONDS and now >= done_at:
                break
            if idle_seconds > IDLE_TIMEOUT_SECONDS:
                break
            time.sleep(_POLL_INTERVAL_SECONDS)
        if not self._sessions:
            _logger.info("tbot did not report a start")

    def _has_delivered(self) -> bool:
        return any(session.flush(0).status in self._accepted for session in self._sessions)


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
