"""An HTTP client that identifies no one: it has no cookies, no ``.netrc`` and no redirects.

Its interface is the one that the official exporters' HTTP transports have since SDK 1.45
(``opentelemetry.exporter.http.transport._base``). It writes each request itself: agents add headers
in the methods of `http.client` and of the libraries on top of it. `connection` has the sockets.
"""

import http.client
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.connection import Connection, ProxyError, remaining
from tbot_otel.otlp.responses import NOT_HTTP, ConsentWithdrawnError, describe_error
from tbot_otel.otlp.tls import CurrentFiles, create_context

if TYPE_CHECKING:
    from tbot_otel.otlp.responses import ResponseObserver
    from tbot_otel.otlp.settings import Settings
    from tbot_otel.otlp.url import URL

MAX_RESPONSE_BYTES = 2**16
"""The most bytes of a response's body. An OTLP response has a few."""

_SAFE = "/%:=&?~+!$,;'@()*[]"
# OpenSSL's codes for a certificate of another host name or IP address. Their messages repeat it.
_OTHER_NAME_CODES = (62, 64)


class RequestError(Exception):
    """A request failed. The text says why, without a value.

    Attributes:
        is_temporary: Whether the exporter should try again.
        can_retry: Whether a later export could succeed.
        is_timeout: Whether no response came in time.
    """

    def __init__(
        self,
        reason: str,
        *,
        is_temporary: bool = True,
        can_retry: bool = False,
        is_timeout: bool = False,
    ) -> None:
        super().__init__(reason)
        self.is_temporary: bool = is_temporary
        self.can_retry: bool = can_retry or is_temporary
        self.is_timeout: bool = is_timeout


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
    """Sends the exports of one exporter, and observes the responses.

    Args:
        settings: Name the endpoint, and all that is sent besides the bodies.
        user_agent: Names the exporter.
        observer: Observes each response, and is asked for consent before each request.
    """

    def __init__(self, settings: "Settings", user_agent: str, observer: "ResponseObserver") -> None:
        # Only a target of gRPC can have none.
        assert settings.url is not None  # noqa: S101 - see above
        self._settings = settings
        self._url = settings.url
        self._observer = observer
        self._head = _encode_head(settings, settings.url, user_agent)
        self._tls = CurrentFiles(settings, create_context) if settings.is_secure else None
        # Threads need no lock for it, because append and pop are atomic.
        self._idle: list[Connection] = []

    def request(self, _method: str, _url: str, *, timeout: float, data: bytes, **_: Any) -> Result:
        """Send an export. A failure is part of the result, and is not raised.

        The method, the URL and the headers are the settings': instrumentation can change others.

        Args:
            timeout: The longest time until the response has arrived, in seconds.
            data: The body.
        """
        deadline = time.monotonic() + timeout
        try:
            self._observer.check_consent()
            response, body = self._send(data, deadline)
        except ConsentWithdrawnError as error:
            return Result(error=error)
        except Exception as error:  # noqa: BLE001 - the exporter logs it, and it can repeat the URL
            failure = _describe(error)
            if isinstance(error, ssl.SSLError) and self._tls is not None:
                self._tls.expire()
            self._observer.fail(
                str(failure), can_retry=failure.can_retry, is_timeout=failure.is_timeout
            )
            return Result(error=failure)
        if response.status == 407:
            self._observer.fail("the proxy responded with 407")
            return Result(response.status, response.reason, response.headers)
        content_type = response.headers.get("Content-Type", "")
        self._observer.observe_http(response.status, content_type, body)
        return Result(response.status, response.reason, response.headers, body)

    def is_connection_error(self, exception: Exception | None) -> bool:
        """Return whether the exporter should try again."""
        return isinstance(exception, RequestError) and exception.is_temporary

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _send(self, data: bytes, deadline: float) -> tuple[http.client.HTTPResponse, bytes | None]:
        connection = self._get_connection(deadline)
        try:
            request = b"%scontent-length: %d\r\n\r\n%s" % (self._head, len(data), data)
            with connection.exchange(request, deadline) as response:
                body = _read_body(response, deadline)
        except BaseException:
            connection.close()
            raise
        if connection.can_be_reused and not response.will_close and body is not None:
            self._idle.append(connection)
        else:
            connection.close()
        return response, body

    def _get_connection(self, deadline: float) -> Connection:
        tls_context = None if self._tls is None else self._tls.get()
        while self._idle:
            connection = self._idle.pop()
            if connection.tls_context is tls_context and not connection.has_unread_bytes():
                return connection
            connection.close()
        return Connection(self._settings, self._url, tls_context, deadline)


def _encode_head(settings: "Settings", url: "URL", user_agent: str) -> bytes:
    """Return a request up to the length of its body. No other header leaves."""
    target = quote(f"{url.path or '/'}{'' if url.query is None else f'?{url.query}'}", safe=_SAFE)
    headers = {
        "host": url.address,
        "accept-encoding": "identity",
        "content-type": "application/x-protobuf",
        "user-agent": user_agent,
    }
    if settings.compression != "none":
        headers["content-encoding"] = settings.compression
    headers.update(settings.headers)
    if login := url.basic_authorization():
        headers["authorization"] = login
    proxy = settings.proxy
    if url.scheme == "http" and proxy is not None and not proxy.scheme.startswith("socks"):
        target = f"http://{url.address}{target}"
        if login := proxy.basic_authorization():
            headers["proxy-authorization"] = login
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers), ""]
    return "\r\n".join(lines).encode()


def _read_body(response: Any, deadline: float) -> bytes | None:
    """Return the body of a successful response; None if it is too large, or not needed."""
    if not 200 <= response.status < 300:
        return None
    body = b""
    while chunk := response.read1(MAX_RESPONSE_BYTES + 1 - len(body)):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            return None
        remaining(deadline)
    # urllib3 checks the length itself.
    if getattr(response, "length", None):
        raise http.client.IncompleteRead(body)
    return body


def _describe(error: Exception) -> RequestError:
    """Return what happened, without a value."""
    if isinstance(error, ProxyError):
        cause = error.__cause__
        # PySocks keeps the error of the socket.
        cause = getattr(cause, "socket_err", None) or cause
        if cause is None:
            return RequestError(str(error), is_temporary=False)
        return _describe_cause(cause, "proxy")
    return _describe_cause(error, "Collector")


def _describe_cause(error: BaseException, peer: str) -> RequestError:
    match error:
        case ExporterConfigurationError():
            # A file for TLS that is not there yet.
            return RequestError(str(error), is_temporary=False, can_retry=True)
        case ssl.SSLCertVerificationError():
            problem = error.verify_message
            if error.verify_code in _OTHER_NAME_CODES:
                problem = "it is for another name"
            return RequestError(
                f"tls: the {peer}'s certificate is not trusted ({problem})", is_temporary=False
            )
        case ssl.SSLError():
            reason = f"tls: the connection failed ({error.reason or type(error).__name__})"
        case socket.gaierror():
            reason = f"the {peer}'s name was not found"
        case TimeoutError():
            return RequestError(f"the {peer} did not respond in time", is_timeout=True)
        case ConnectionRefusedError():
            reason = f"the {peer} refused the connection"
        case http.client.RemoteDisconnected() | http.client.IncompleteRead():
            reason = f"the {peer} closed the connection before it responded"
        case ConnectionError():
            reason = f"the {peer} reset the connection"
        case http.client.HTTPException():
            return RequestError(NOT_HTTP, is_temporary=False)
        case OSError(errno=int(number)):
            reason = f"the connection failed ({os.strerror(number)})"
        case OSError() if peer == "proxy":
            reason = "the proxy did not connect to the Collector"
        case _:
            return RequestError(f"the request failed ({describe_error(error)})", is_temporary=False)
    return RequestError(reason)
