"""The forwarder: hands tbot's own report over to the Collector, and goes away by itself.

It answers tbot when the Collector has taken the report, or with ``unavailable`` when it has not in
time. HTTP is waitress's, the protocol is in `connect`, and sending is the `sender`'s. What takes
time to import is imported when the log can tell what is wrong with it.
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

from tbot_otel import destination, sender
from tbot_otel.events import StartEvent
from tbot_otel.session import Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tbot_otel.connect import Context, Request

STAY = 600.0
"""The longest stay without a report, in seconds."""
LINGER = 1.0
"""The stay after a delivered report or tbot's end, in seconds: what else was sent is answered."""

_POLL = 0.1
# What is larger than a request may be, but no more than this, still gets Connect's own answer. With
# the most connections it bounds the memory that others on this machine can make it take.
_MOST_BYTES = 2**17
_MOST_HEADER_BYTES = 2**14
_MOST_CONNECTIONS = 256

_logger = logging.getLogger("tbot_otel.run")


def forward(
    listener: int, prefix: str, *, tbot: int, born: float, journal: int | None = None
) -> None:
    """Answer tbot until there is nothing more to do.

    Args:
        listener: The descriptor of a TCP socket that listens.
        prefix: The path of the address that tbot has.
        tbot: The process id of tbot.
        born: When this process was forked, on the monotonic clock in seconds.
        journal: The descriptor of a file for the log; none unless given.
    """
    # What has none of its own may still write to it.
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if journal is not None:
        _log_to(journal)
    # It lives for a moment, and nearly all of its work is imports.
    gc.disable()
    try:
        # Watched first: a process id can be another's later.
        watch = _Watch(tbot)
        _Forwarder(_Listener(listener, born), prefix).stay(watch)
    except Exception as error:
        details = _logger.isEnabledFor(logging.DEBUG)
        _logger.exception(
            "tbot's start is not delivered (%s)", type(error).__name__, exc_info=details
        )


def _log_to(journal: int) -> None:
    handler = logging.StreamHandler(os.fdopen(journal, "w", encoding="utf-8"))
    handler.setFormatter(logging.Formatter("%(asctime)s tbot-otel run: %(message)s"))
    _logger.addHandler(handler)
    _logger.propagate = False
    levels = {**logging.getLevelNamesMapping(), "NONE": logging.CRITICAL + 1}
    # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    _logger.setLevel(levels.get(os.environ.get("OTEL_LOG_LEVEL", "").upper(), logging.INFO))


class _Listener(socket.socket):
    """A listening socket that knows since when a connection waits for its first answer."""

    def __init__(self, descriptor: int, born: float) -> None:
        super().__init__(fileno=descriptor)
        self._born = born
        self._ready = float("inf")
        self._waiting: dict[str, float] = {}
        self.problem: OSError | None = None

    def accept(self) -> "tuple[socket.socket, Any]":
        try:
            connection, address = super().accept()
        except OSError as error:
            # The server would try for ever.
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.problem = error
            raise
        now = time.monotonic()
        # While there was nobody to accept it, it may have waited from the beginning.
        waits_since = self._born if now - self._ready < LINGER else now
        self._waiting["{}:{}".format(*address)] = waits_since
        return connection, address

    def is_ready(self) -> None:
        """Say that from now on a connection is accepted when it comes."""
        self._ready = time.monotonic()

    def waits_since(self, client: str | None) -> float:
        """Return since when a client's request waits, on the monotonic clock in seconds."""
        return self._waiting.pop(client or "", time.monotonic())


class _Forwarder:
    """Answers tbot's calls on threads of the server, from its making on."""

    def __init__(self, listener: _Listener, prefix: str) -> None:
        from waitress.server import create_server

        # What the first record needs is here before it comes.
        from tbot_otel import connect, exporter, otlp, record  # noqa: F401

        otlp.import_exporter()
        self._target = f"{destination.endpoint()} ({destination.protocol()})"
        self._listener = listener
        self._lock = threading.Lock()
        self._under_way = 0
        self._heard = time.monotonic()
        self._sessions: list[Session] = []
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._application = connect.wsgi_application(self._take, prefix)
        self._prefix = prefix
        server = create_server(
            self._answer,
            sockets=[listener],
            threads=4,
            connection_limit=min(_MOST_CONNECTIONS, descriptors // 2),
            channel_timeout=int(connect.ANSWER_WITHIN),
            cleanup_interval=1,
            max_request_header_size=_MOST_HEADER_BYTES,
            max_request_body_size=_MOST_BYTES,
            # No body is so large that it becomes a file.
            inbuf_overflow=2 * _MOST_BYTES,
            asyncore_use_poll=True,
            ident="",
        )
        listener.is_ready()
        threading.Thread(target=server.run, name="tbot_otel", daemon=True).start()

    def _answer(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Answer a request, and log what became of it."""
        answered = ""

        def start(status: str, *rest: "Any") -> "Any":
            nonlocal answered
            answered = status
            return start_response(status, *rest)

        body = list(self._application(environ, start))
        # What comes without the secret is not tbot's.
        if environ["PATH_INFO"].startswith(self._prefix):
            if answered.startswith("200 "):
                _logger.info("tbot's start is delivered to %s", self._target)
            else:
                # An error of Connect is JSON; one of HTTP has no body.
                said = json.loads(b"".join(body) or "{}").get("message", answered)
                _logger.warning("tbot's start is not delivered to %s: %s", self._target, said)
        return body

    def _take(self, request: "Request", context: "Context") -> None:
        from tbot_otel.connect import ANSWER_WITHIN

        deadline = self._listener.waits_since(context.client_address) + ANSWER_WITHIN
        with self._lock:
            self._under_way += 1
        try:
            self._deliver(request, deadline)
        finally:
            with self._lock:
                self._under_way -= 1
                self._heard = time.monotonic()

    def _deliver(self, request: "Request", deadline: float) -> None:
        from tbot_otel.connect import read, unavailable

        report = read(request, time.time_ns())
        session = Session.reported(report.session_id, report.timestamp)
        self._sessions.append(session)
        try:
            sender.submit(StartEvent.of(report.attributes), session, None)
        except Exception as error:  # noqa: BLE001 - there may be no thread left for it
            session.fail(error)
        outcome = session.flush(max(0.0, deadline - time.monotonic()))
        if outcome.status is Status.PENDING:
            raise unavailable("the Collector has not taken it in time")
        if outcome.status is not Status.DELIVERED:
            raise unavailable(outcome.reason)

    def stay(self, watch: "_Watch") -> None:
        """Stay until there is nothing more to do."""
        leave = float("inf")
        while True:
            if self._listener.problem is not None:
                raise self._listener.problem
            now = time.monotonic()
            if leave == float("inf") and (watch.has_ended() or self._has_delivered()):
                leave = now + LINGER
            with self._lock:
                idle = 0.0 if self._under_way else now - self._heard
            if (idle >= LINGER and now >= leave) or idle > STAY:
                break
            time.sleep(_POLL)
        if not self._sessions:
            _logger.info("tbot has reported no start")

    def _has_delivered(self) -> bool:
        return any(session.flush(0).status is Status.DELIVERED for session in self._sessions)


class _Watch:
    """Knows when a process has ended, though it is no child of this one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor: int | None = None
        # Linux alone has it; and where the process has ended, there is nothing to open.
        with contextlib.suppress(AttributeError, OSError):
            self._descriptor = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        """Say whether the process has ended."""
        if self._descriptor is not None:
            return bool(select.select([self._descriptor], [], [], 0)[0])
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            # It has become another user's.
            pass
        return False
