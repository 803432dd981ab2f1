"""Connections that say nothing: the server would wait for ever to see which HTTP they speak."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

# The state, and milliseconds since data was received: struct tcp_info of Linux's <linux/tcp.h>.
_INFO = struct.Struct("=B51xI")
_LISTEN = 10
_DESCRIPTORS = Path("/proc/self/fd")


def close(seconds: float) -> None:
    """Close each connection of this process's server on which nothing has come for so long.

    Linux alone tells how long that is; elsewhere, nothing is closed.
    """
    # What fails now, such as for want of descriptors, may not the next time.
    with contextlib.suppress(OSError):
        ports = {_port(item) for item, state, _ in _tcp_sockets() if state == _LISTEN}
        for item, state, silent in _tcp_sockets():
            # Those to the Collector are not the server's.
            if state != _LISTEN and silent > seconds * 1000 and _port(item) in ports:
                with contextlib.suppress(OSError):  # It has ended meanwhile.
                    item.shutdown(socket.SHUT_RDWR)


def _port(item: socket.socket) -> int:
    return int(item.getsockname()[1])


def _tcp_sockets() -> Iterator[tuple[socket.socket, int, int]]:
    for path in _DESCRIPTORS.iterdir():
        # What is not there any more, and what is no TCP socket.
        with contextlib.suppress(OSError), _copy(int(path.name)) as item:
            state, silent = _INFO.unpack(
                item.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            )
            yield item, state, silent


def _copy(descriptor: int) -> socket.socket:
    """A copy stays what it is, when the server closes its own and has the number again."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
