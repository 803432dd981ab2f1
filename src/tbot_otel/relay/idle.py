"""Closes silent connections. The server waits forever for the first bytes, to detect HTTP/2."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

# The state, and the milliseconds since data was received: struct tcp_info in <linux/tcp.h>.
_TCP_INFO = struct.Struct("=B51xI")
_TCP_LISTEN = 10
_FD_FOLDER = Path("/proc/self/fd")


def close_idle_connections(idle_seconds: float) -> None:
    """Close each of the server's connections that has received nothing for that long.

    Only Linux reports how long that is. Elsewhere, no connection is closed.
    """
    # A failure, such as too few descriptors, may not happen the next time.
    with contextlib.suppress(OSError):
        ports = {_port(item) for item, state, _ in _tcp_sockets() if state == _TCP_LISTEN}
        for item, state, idle_millis in _tcp_sockets():
            # Connections to the Collector have other ports.
            if state != _TCP_LISTEN and idle_millis > idle_seconds * 1000 and _port(item) in ports:
                with contextlib.suppress(OSError):  # It may have closed already.
                    item.shutdown(socket.SHUT_RDWR)


def _port(item: socket.socket) -> int:
    return int(item.getsockname()[1])


def _tcp_sockets() -> Iterator[tuple[socket.socket, int, int]]:
    for path in _FD_FOLDER.iterdir():
        # Skip descriptors that are closed already or are not TCP sockets.
        with contextlib.suppress(OSError), _duplicate(int(path.name)) as item:
            state, idle_millis = _TCP_INFO.unpack(
                item.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            )
            yield item, state, idle_millis


def _duplicate(fd: int) -> socket.socket:
    """Duplicate a descriptor: the server may close its own, and the number may be reused."""
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
