"""An HTTP client that identifies no one: it has no cookies, no ``.netrc`` and no redirects.

Its interface is the one that the official exporters' HTTP transports have since SDK 1.45
(``opentelemetry.exporter.http.transport._base``). The standard library's client is used, because
importing another one takes a sixth of a short process; only a proxy needs `urllib3`.
"""

# A name lookup imports it, and a child that was forked meanwhile could not import it anymore.
import encodings.idna  # noqa: F401
import functools
import http.client
import io
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.responses import NOT_OTLP, ConsentWithdrawnError
from tbot_otel.otlp.url import INVALID_ENDPOINT, basic_authorization, split_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tbot_otel.otlp.responses import ResponseObserver

MAX_RESPONSE_BYTES = 2**16
"""The most bytes of a response's body. An OTLP response has a few."""
DEFAULT_TIMEOUT_SECONDS = 10.0

_SAFE = "/%:=&?~+!$,;'@()*[]"
# OpenSSL's codes for a certificate of another host name or IP address. Their messages repeat it.
_OTHER_NAME_CODES = (62, 64)


class RequestError(Exception):
    """A request failed. The text says why, without a value.

    Attributes:
        is_temporary: Whether the exporter should try again.
    """

    def __init__(self, reason: str, *, is_temporary: bool) -> None:
        super().__init__(reason)
        self.is_temporary: bool = is_temporary


class Result:
    """The result of a request: a response, or an error."""

    __slots__ = ("_body", "_headers", "error", "reason", "status_code")

    def __init__(
        self,
        status_code: int | None = None,
        reason: str | None = None,
        headers: Any = None,
        body: bytes | None = None,
        error: Exception | None = None,
    ) -> None:
        self.status_code: int | None = status_code
        self.reason: str | None = reason
        self.error: Exception | None = error
        self._headers = {} if headers is None else headers
        self._body = body or b""

    def content(self) -> bytes:
        """Return the body of a successful response."""
        return self._body

    def headers(self) -> Any:
        """Return the headers, a mapping whose names are case-insensitive."""
        return self._headers


class HTTPClient:
    """Sends the requests of one exporter, and observes the responses.

    Args:
        observer: Observes each response, and is asked for consent before each request.
        tls_context: The TLS settings for an ``https`` endpoint.
        proxy: The `urllib3.ProxyManager` of the endpoint's proxy; None for no proxy.
    """

    def __init__(
        self, observer: "ResponseObserver", tls_context: ssl.SSLContext | None, proxy: Any = None
    ) -> None:
        self._observer = observer
        self._tls_context = tls_context
        self._proxy = proxy
        # Threads need no lock for it, because append and pop are atomic.
        self._idle: list[http.client.HTTPConnection] = []

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: "Mapping[str, str] | None" = None,
        timeout: float | None = None,
        data: bytes | None = None,
    ) -> Result:
        """Send a request. A failure is part of the result, and is not raised.

        Args:
            method: The method.
            url: The URL. Its user and password become basic authorization.
            headers: The headers.
            timeout: The longest time until the response has arrived, in seconds.
            data: The body.
        """
        seconds = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
        deadline = time.monotonic() + seconds
        try:
            self._observer.check_consent()
            return self._send(_Request(method, split_url(url), dict(headers or {}), data), deadline)
        except ConsentWithdrawnError as error:
            return Result(error=error)
        except Exception as error:  # noqa: BLE001 - the exporter logs it, and it can repeat the URL
            failure = _describe(error)
            self._observer.fail(str(failure), can_retry=failure.is_temporary)
            return Result(error=failure)

    def is_connection_error(self, exception: Exception | None) -> bool:
        """Return whether the exporter should try again."""
        return isinstance(exception, RequestError) and exception.is_temporary

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()
        if self._proxy is not None:
            self._proxy.clear()

    def _send(self, request: "_Request", deadline: float) -> Result:
        if self._proxy is None:
            response, body = self._send_directly(request, deadline)
        else:
            response, body = self._send_to_proxy(request, deadline)
        content_type = response.headers.get("Content-Type", "")
        self._observer.observe_http(response.status, content_type, body)
        return Result(response.status, response.reason, response.headers, body)

    def _send_to_proxy(self, request: "_Request", deadline: float) -> tuple[Any, bytes | None]:
        url = request.url
        response = self._proxy.urlopen(
            request.method,
            f"{url.scheme}://{url.netloc.rpartition('@')[2]}{request.target}",
            body=request.body,
            headers=request.headers,
            timeout=_remaining(deadline),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        try:
            return response, _read_body(response, deadline)
        finally:
            # A connection whose response was read is in the pool already, and stays open.
            response.close()

    def _send_directly(self, request: "_Request", deadline: float) -> tuple[Any, bytes | None]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._create_connection(request.url)
        try:
            connection.timeout = _remaining(deadline)
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(_remaining(deadline))
            connection.response_class = functools.partial(_create_response, deadline)  # type: ignore[assignment]
            connection.request(request.method, request.target, request.body, request.headers)
            with connection.getresponse() as response:
                body = _read_body(response, deadline)
        except BaseException:
            connection.close()
            raise
        if body is None or connection.sock is None:
            connection.close()
        else:
            self._idle.append(connection)
        return response, body

    def _create_connection(self, url: SplitResult) -> http.client.HTTPConnection:
        if url.scheme == "https":
            return http.client.HTTPSConnection(
                str(url.hostname), url.port, context=self._tls_context
            )
        return http.client.HTTPConnection(str(url.hostname), url.port)


class _Request:
    """A request, as it is sent.

    Args:
        method: The method.
        url: The URL.
        headers: The headers.
        body: The body.
    """

    def __init__(
        self, method: str, url: SplitResult, headers: dict[str, str], body: bytes | None
    ) -> None:
        if login := basic_authorization(url):
            headers["authorization"] = login
        self.method = method
        self.url = url
        self.target = quote(f"{url.path or '/'}{'?' if url.query else ''}{url.query}", safe=_SAFE)
        self.headers = headers
        self.body = body


def _create_response(
    deadline: float, sock: socket.socket, **arguments: Any
) -> http.client.HTTPResponse:
    reader: Any = _DeadlineReader(sock, deadline)
    return http.client.HTTPResponse(reader, **arguments)


class _DeadlineReader(io.RawIOBase):
    """Reads a response until a deadline. A socket's own timeout starts anew at each read.

    `http.client` uses only `makefile` of the socket that it reads a response from.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._deadline = deadline
        # It keeps the socket open when the connection closes it before the body is read.
        self._file = sock.makefile("rb", 0)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_remaining(self._deadline))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _read_body(response: Any, deadline: float) -> bytes | None:
    """Return the body of a successful response; None if it is too large, or not needed."""
    if not 200 <= response.status < 300:
        return None
    body = b""
    while chunk := response.read1(MAX_RESPONSE_BYTES + 1 - len(body)):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            return None
        _remaining(deadline)
    # urllib3 checks the length itself.
    if getattr(response, "length", None):
        raise http.client.IncompleteRead(body)
    return body


def _describe(error: Exception) -> RequestError:
    """Return what happened, without a value."""
    # urllib3 wraps the error of the socket.
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    is_proxy = any("Proxy" in type(cause).__name__ for cause in causes)
    for cause in causes:
        if failure := _describe_cause(cause, "proxy" if is_proxy else "Collector"):
            return failure
    return RequestError(f"the request failed ({type(error).__name__})", is_temporary=False)


def _describe_cause(error: BaseException, peer: str) -> RequestError | None:
    temporary = True
    match error:
        case ExporterConfigurationError():
            reason, temporary = str(error), False
        case ssl.SSLCertVerificationError():
            problem = error.verify_message
            if error.verify_code in _OTHER_NAME_CODES:
                problem = "it is for another name"
            reason, temporary = f"tls: the {peer}'s certificate is not trusted ({problem})", False
        case ssl.SSLError():
            reason = f"tls: the connection failed ({error.reason or type(error).__name__})"
        case socket.gaierror():
            reason = f"the {peer}'s name was not found"
        case TimeoutError():
            reason = f"the {peer} did not respond in time"
        case ConnectionRefusedError():
            reason = f"the {peer} refused the connection"
        case http.client.RemoteDisconnected() | http.client.IncompleteRead():
            reason = f"the {peer} closed the connection before it responded"
        case ConnectionError():
            reason = f"the {peer} reset the connection"
        case http.client.InvalidURL():
            reason, temporary = INVALID_ENDPOINT, False
        case http.client.HTTPException():
            reason, temporary = NOT_OTLP, False
        case OSError(errno=int(number)):
            reason = f"the connection failed ({os.strerror(number)})"
        case OSError() if str(error).startswith("Tunnel connection failed: "):
            reason = f"the {peer} responded with {str(error).split()[3]}"
        case _:
            return None
    return RequestError(reason, is_temporary=temporary)
