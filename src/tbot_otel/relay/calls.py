"""Calls as the official Connect runtime parses them, and responses as the server sends them."""

import io
import json
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tbot_otel.connect import Context, Report, Request, parse_report, wsgi_application

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

    from granian.rsgi import Scope

    from tbot_otel.relay.problems import Problem

# Only these reach the runtime. Others can identify the caller.
_HEADERS = {
    "content-type": "CONTENT_TYPE",
    "content-encoding": "HTTP_CONTENT_ENCODING",
    "accept-encoding": "HTTP_ACCEPT_ENCODING",
    "connect-protocol-version": "HTTP_CONNECT_PROTOCOL_VERSION",
    "connect-timeout-ms": "HTTP_CONNECT_TIMEOUT_MS",
}


class Response(NamedTuple):
    """A response to a request."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Call(NamedTuple):
    """A parsed call.

    Attributes:
        response: The response; to a valid report, only if it is delivered.
        report: The report; None if the call is not valid.
        timeout_ms: How long the caller waits for the response, if it says so.
    """

    response: Response
    report: Report | None = None
    timeout_ms: float | None = None


class CallParser:
    """Parses calls with the official runtime.

    Args:
        prefixes: The paths that can precede that of a call.
        allowed_helpers: See `policy.decide`.
    """

    def __init__(self, prefixes: Iterable[str], allowed_helpers: Collection[str]) -> None:
        self._allowed_helpers = allowed_helpers
        self._application = wsgi_application(self._handle_report, prefixes)
        self._received: tuple[Report, float | None] | None = None

    def parse(self, scope: "Scope", body: bytes) -> Call:
        """Parse a call."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": scope.method,
            "PATH_INFO": scope.path,
            "SCRIPT_NAME": "",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            # Unexpected errors are written here. They can repeat a report.
            "wsgi.errors": io.StringIO(),
        }
        headers = scope.headers
        for name, variable in _HEADERS.items():
            if (value := headers.get(name)) is not None:
                environ[variable] = value
        start: list[Any] = []
        # WSGI is synchronous: the runtime calls `_handle_report` before it returns.
        self._received = None
        content = b"".join(
            self._application(environ, cast("StartResponse", lambda *a: start.extend(a)))
        )
        response = Response(int(start[0][:3]), start[1], content)
        return Call(response, *self._received) if self._received else Call(response)

    def _handle_report(self, request: Request, context: Context) -> None:
        report = parse_report(request, time.time_ns(), self._allowed_helpers)
        self._received = report, context.timeout_ms


def json_response(status: int, content: Mapping[str, str]) -> Response:
    """Return a response with a JSON body."""
    headers = [("content-type", "application/json")]
    return Response(status, headers, json.dumps(content).encode())


def error_response(problem: "Problem") -> Response:
    """Return Connect's response to a call that was not acknowledged."""
    content = {"code": problem.code.value, "message": problem.message}
    return json_response(problem.http_status, content)
