"""A connection of the HTTP client, direct or through a proxy: request bytes in, a response out."""

# A name lookup imports it, and a child that was forked meanwhile could not import it anymore.
import encodings.idna  # noqa: F401
import http.client
import io
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from tbot_otel.otlp.tls import create_context

if TYPE_CHECKING:
    from tbot_otel.otlp.settings import Settings
    from tbot_otel.otlp.url import URL

DEFAULT_PORTS = {"http": 80, "https": 443}
_SOCKS_PORT = 1080


class ProxyError(Exception):
    """The proxy did not connect. The cause says why; without one, the text does."""


class Connection:
    """A connection to the Collector.

    Args:
        settings: Name the proxy.
        url: The endpoint.
        tls_context: The TLS settings; None for plain text.
        deadline: The end of the attempt to connect, on the monotonic clock in seconds.

    Attributes:
        tls_context: The TLS settings.
        can_be_reused: Whether the last response has ended, and nothing came after it.

    Raises:
        ProxyError: The proxy did not connect.
        OSError: The Collector did not.
    """

    def __init__(
        self, settings: "Settings", url: "URL", tls_context: ssl.SSLContext | None, deadline: float
    ) -> None:
        self.tls_context = tls_context
        self.can_be_reused: bool = False
        self._socket = _connect(settings, url, deadline)
        if tls_context is not None:
            try:
                self._socket.settimeout(remaining(deadline))
                self._socket = _start_tls(self._socket, tls_context, url.host)
            except BaseException:
                self._socket.close()
                raise

    def has_unread_bytes(self) -> bool:
        """Return whether something has arrived since the last response, such as its end.

        It cannot be the response to the next request.
        """
        return is_readable(self._socket)

    def exchange(self, request: bytes, deadline: float) -> http.client.HTTPResponse:
        """Send a request, and return the response, whose body is not read yet."""
        self.can_be_reused = False
        self._socket.settimeout(remaining(deadline))
        self._socket.sendall(request)
        return _read_response(self._socket, deadline, on_end=self._end_response)

    def _end_response(self, *, is_drained: bool) -> None:
        self.can_be_reused = is_drained

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def is_readable(sock: socket.socket) -> bool:
    """Return whether bytes or the end of the connection have arrived. This does not wait."""
    # Windows has no poll, and select has a limit of descriptors elsewhere.
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def remaining(deadline: float) -> float:
    """Return the seconds until a deadline.

    Raises:
        TimeoutError: It has passed.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _connect(settings: "Settings", url: "URL", deadline: float) -> Any:
    port = url.port or DEFAULT_PORTS[url.scheme]
    proxy = settings.proxy
    if proxy is None:
        return _connect_directly(url.host, port, deadline)
    try:
        if proxy.scheme.startswith("socks"):
            return _connect_through_socks(proxy, url.host, port, deadline)
        sock = _connect_directly(proxy.host, proxy.port or DEFAULT_PORTS[proxy.scheme], deadline)
        try:
            if proxy.scheme == "https":
                sock.settimeout(remaining(deadline))
                sock = _start_tls(sock, create_context(settings, for_proxy=True), proxy.host)
            if url.scheme == "https":
                _open_tunnel(sock, proxy, f"{url.bracketed_host}:{port}", deadline)
        except BaseException:
            sock.close()
            raise
    except (OSError, http.client.HTTPException) as error:
        raise ProxyError from error
    return sock


def _connect_directly(host: str, port: int, deadline: float) -> socket.socket:
    sock = socket.create_connection((host, port), remaining(deadline))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _start_tls(sock: Any, context: ssl.SSLContext, host: str) -> Any:
    if not isinstance(sock, ssl.SSLSocket):
        return context.wrap_socket(sock, server_hostname=host)
    # The standard library's sockets have no TLS within TLS.
    from urllib3.util.ssltransport import SSLTransport

    return SSLTransport(sock, context, host)


def _connect_through_socks(proxy: "URL", host: str, port: int, deadline: float) -> Any:
    import socks

    version = socks.SOCKS4 if proxy.scheme.startswith("socks4") else socks.SOCKS5
    user, password = proxy.user_and_password()
    return socks.create_connection(
        (host, port),
        remaining(deadline),
        proxy_type=version,
        proxy_addr=proxy.host,
        proxy_port=proxy.port or _SOCKS_PORT,
        # The last letter says that the proxy looks the name up.
        proxy_rdns=proxy.scheme[-1] in "ah",
        proxy_username=user or None,
        proxy_password=password or None,
    )


def _open_tunnel(sock: Any, proxy: "URL", address: str, deadline: float) -> None:
    lines = [f"CONNECT {address} HTTP/1.1", f"host: {address}"]
    if login := proxy.basic_authorization():
        lines.append(f"proxy-authorization: {login}")
    sock.settimeout(remaining(deadline))
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    response = _read_response(sock, deadline, method="CONNECT")
    if not 200 <= response.status < 300:
        raise ProxyError(f"the proxy responded with {response.status}")


def _read_response(
    sock: Any, deadline: float, *, method: str | None = None, on_end: Any = None
) -> http.client.HTTPResponse:
    """Return the final response. Others come before it (https://www.rfc-editor.org/rfc/rfc9110#section-15.2)."""
    reader = _ResponseReader(_DeadlineReader(sock, deadline), on_end)
    while True:
        response = http.client.HTTPResponse(reader, method=method)  # type: ignore[arg-type]
        response.begin()
        if not 100 <= response.status < 200 or response.status == 101:
            return response
        # Otherwise, its end would close the reader.
        response.fp = None  # type: ignore[assignment]


class _ResponseReader(io.BufferedReader):
    """Reads a response, and tells at its end whether more was read than that.

    `http.client` uses only `makefile` of the socket that it reads a response from.
    """

    def __init__(self, raw: "_DeadlineReader", on_end: Any) -> None:
        super().__init__(raw)
        self._on_end = on_end

    def makefile(self, _: str) -> "_ResponseReader":
        return self

    def close(self) -> None:
        if not self.closed:
            raw: Any = self.raw
            raw.has_ended = True
            is_drained = not self.peek()
            if self._on_end is not None:
                self._on_end(is_drained=is_drained)
        super().close()


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until a deadline. A socket's own timeout starts anew at each read."""

    def __init__(self, sock: Any, deadline: float) -> None:
        self._socket = sock
        self._deadline = deadline
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.has_ended:
            return 0
        self._socket.settimeout(remaining(self._deadline))
        return int(self._socket.recv_into(buffer))
