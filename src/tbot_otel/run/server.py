"""The forwarder's HTTP server: waitress, and limits for the others on this machine."""

import errno
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

from tbot_otel import connect

# tbot's request is the newest connection's, and has a few hundred bytes. Together, these limits
# bound the memory that others can make the forwarder use.
_MAX_CONNECTIONS = 128
_MAX_HEADER_BYTES = 2**12
# Larger than `connect` allows, so that it can respond with its own error.
_MAX_BODY_BYTES = 2 * connect.MAX_REQUEST_BYTES
# waitress parses all requests that a read contains, before it responds to the first one.
_RECV_BYTES = 2**10
# One waits for the Collector, and one responds to the others.
_THREADS = 2
# The listening socket, and the pipe that wakes the server.
_OTHER_DISPATCHERS = 2
_STARTUP_SECONDS = 1.0


class _Channel(HTTPChannel):
    """A connection that records when it was accepted, on the monotonic clock in seconds."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.accepted_at: float = time.monotonic()
        super().__init__(*arguments, **settings)


class Server(TcpWSGIServer):
    """Serves the application on the thread that calls `run`, and on threads of its own.

    Connections without a complete request are closed at a deadline, even if they are active. When
    there are too many, the oldest of them is closed. (waitress closes only inactive ones, and stops
    accepting.)

    Args:
        application: The WSGI application.
        listener: A listening TCP socket.
        forked_at: When this process was forked, on the monotonic clock in seconds.
        on_fatal_error: Called when no connection can be accepted.

    Attributes:
        fatal_error: Why no connection can be accepted; None if they can.
    """

    channel_class: type[HTTPChannel] = _Channel

    def __init__(
        self,
        application: Any,
        listener: socket.socket,
        forked_at: float,
        on_fatal_error: Callable[[], None],
    ) -> None:
        max_fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_connections = min(_MAX_CONNECTIONS, max_fds // 2)
        self._forked_at = forked_at
        self._on_fatal_error = on_fatal_error
        self.fatal_error: OSError | None = None
        super().__init__(
            application,
            None,
            True,
            listener,
            sockinfo=(listener.family, listener.type, None, None),
            bind_socket=False,
            threads=_THREADS,
            connection_limit=self._max_connections + _OTHER_DISPATCHERS + 1,
            channel_timeout=int(connect.RESPONSE_TIMEOUT_SECONDS),
            cleanup_interval=1,
            recv_bytes=_RECV_BYTES,
            max_request_header_size=_MAX_HEADER_BYTES,
            max_request_body_size=_MAX_BODY_BYTES,
            # High enough that no body is written to a file.
            inbuf_overflow=2 * _MAX_BODY_BYTES,
            asyncore_use_poll=True,
            ident="",
        )
        # Its type in types-waitress is wrong.
        self._channels: Any = self.active_channels
        self._ready_at = time.monotonic()

    # waitress calls the next three methods on the thread that also closes connections.

    def accept(self) -> Any:
        """Accept a connection."""
        try:
            return super().accept()
        except OSError as error:
            # The server would retry forever.
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.fatal_error = error
                self._on_fatal_error()
            raise

    def handle_accept(self) -> None:
        """Accept a connection, and close the oldest one without a request if there are too many."""
        super().handle_accept()
        if len(self._channels) > self._max_connections:
            for channel in self._find_incomplete()[:1]:
                channel.handle_close()

    def maintenance(self, now: float) -> None:  # noqa: ARG002 - the name that waitress calls
        """Close the connections that have had no complete request for too long."""
        accepted_before = time.monotonic() - self.adj.channel_timeout
        for channel in self._find_incomplete():
            if channel.accepted_at < accepted_before:
                channel.handle_close()

    def _find_incomplete(self) -> list[_Channel]:
        """Return the connections without a complete request, the oldest first."""
        return [channel for channel in self._channels.values() if not channel.requests]

    def waiting_since(self, client: str | None) -> float:
        """Return since when a client has been waiting, on the monotonic clock in seconds."""
        # A copy, because the server's thread changes it.
        for channel in list(self._channels.values()):
            if "{}:{}".format(*channel.addr) == client:
                # One accepted right at the start may have been waiting since the fork.
                is_early = channel.accepted_at - self._ready_at < _STARTUP_SECONDS
                return self._forked_at if is_early else channel.accepted_at
        return time.monotonic()
