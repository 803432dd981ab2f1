"""Call the Connect application without a socket."""

import io
import json
import re
from collections.abc import Callable
from typing import NamedTuple

from connectrpc.request import RequestContext

from support.messages import JSON, MARKER, NOW, PROTO
from tbot_otel.connect import PATH, Context, Report, Request, parse_report, wsgi_application


class Reply(NamedTuple):
    """A response of the application: HTTP status, Connect's code and message; and the reports."""

    status: int
    code: str
    message: str
    reports: list[Report]


def call_application(
    body: bytes,
    content_type: str | None = PROTO,
    *,
    method: str = "POST",
    path: str = PATH,
    **variables: str,
) -> Reply:
    """Call the application, and check that no output contains the marker."""
    reports: list[Report] = []
    responses: list[tuple[str, list[tuple[str, str]]]] = []
    output = io.BytesIO()
    errors = io.StringIO()

    def handle(request: Request, context: Context) -> None:
        assert isinstance(context, RequestContext)
        reports.append(parse_report(request, NOW))

    def start_response(
        status: str, headers: list[tuple[str, str]], _: object = None, /
    ) -> Callable[[bytes], object]:
        responses.append((status, headers))
        return output.write

    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": errors,
        **variables,
    }
    if content_type is not None:
        environ["CONTENT_TYPE"] = content_type
    output.writelines(wsgi_application(handle)(environ, start_response))
    ((status, headers),) = responses
    attributes = [report.permitted.attributes for report in reports]
    assert MARKER not in f"{status}{headers}{output.getvalue()!r}{errors.getvalue()}{attributes}"
    assert not errors.getvalue()
    error = {"code": "", "message": ""}
    if int(status[:3]) != 200 and output.getvalue():
        # Connect's errors are JSON for every request.
        assert ("Content-Type", JSON) in headers
        error = json.loads(output.getvalue())
    return Reply(int(status[:3]), error["code"], error["message"], reports)


def parse_responses(data: bytes) -> tuple[list[int], list[str]]:
    """The HTTP status of each response, and Connect's code of each that has one."""
    assert MARKER.encode() not in data
    statuses = re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", data)
    codes = re.findall(rb'"code": "([a-z_]+)"', data)
    return [int(status) for status in statuses], [code.decode() for code in codes]
