"""tbot's own report: Connect requests in, reports out, no sockets.

tbot reports its start in one unary call of the Connect protocol
(https://connectrpc.com/docs/protocol/). The official runtime parses the call and responds to it.
``tbot.proto`` defines the messages.
"""

import contextlib
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from connectrpc.code import Code
from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectWSGIApplication, EndpointSync

from tbot_otel.connect.tbot_pb import SubmitTbotEventRequest, SubmitTbotEventResponse
from tbot_otel.policy import Permitted, Refused, decide
from tbot_otel.registry import ATTRIBUTES, START
from tbot_otel.session import blur_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_REQUEST_BYTES = 4 * 1024
"""The largest request, before and after decompression. A report has about 100 bytes."""

RESPONSE_TIMEOUT_SECONDS = 8.0
"""The longest time until tbot gets its response. A one-shot tbot gives up after 10 seconds."""

# Thousands of brackets overflow the stack of the official JSON parser and crash the process.
_MAX_JSON_BRACKETS = 100

Request = SubmitTbotEventRequest
Context = RequestContext[SubmitTbotEventRequest, SubmitTbotEventResponse]

METHOD = MethodInfo(
    name="SubmitTbotEvent",
    service_name="prehog.v1alpha.TbotReportingService",
    input=SubmitTbotEventRequest,
    output=SubmitTbotEventResponse,
    idempotency_level=IdempotencyLevel.UNKNOWN,
    stream_type=StreamType.UNARY,
)
PATH = f"/{METHOD.service_name}/{METHOD.name}"
"""The path of the call, appended to the address that tbot was given."""

# The official runtime repeats any other value of these headers in its error.
_EXPECTED_HEADERS = {
    "HTTP_CONNECT_PROTOCOL_VERSION": re.compile("1"),
    "HTTP_CONNECT_TIMEOUT_MS": re.compile("[0-9]{1,10}"),
    "HTTP_CONTENT_ENCODING": re.compile("gzip|identity"),
}

# Newer agents may send other numbers.
_RUN_MODES = {1: "one-shot", 2: "daemon"}
_SESSION_ID = ATTRIBUTES["session.id"]


class Report:
    """tbot's report of its start, reduced to what may leave.

    Attributes:
        session_id: The version 4 UUID that tbot created for this start.
        timestamp: When it was received, less a random part of a minute, in nanoseconds since
            1970-01-01 UTC. tbot's own time is ignored, because a clock can identify a machine.
        permitted: What policy permitted.
    """

    __slots__ = ("permitted", "session_id", "timestamp")

    def __init__(self, session_id: str, timestamp: int, permitted: Permitted) -> None:
        self.session_id: str = session_id
        self.timestamp: int = timestamp
        self.permitted: Permitted = permitted


def parse_report(
    request: Request, received_at: int, allowed_helpers: Collection[str] = ()
) -> Report:
    """Parse a request, and let policy decide on it.

    Args:
        request: The message.
        received_at: When it was received, in nanoseconds since 1970-01-01 UTC.
        allowed_helpers: See `policy.decide`.

    Raises:
        ConnectError: ``invalid_argument``. It names the field at fault, and not its value.
    """
    session_id = request.distinct_id.lower()
    # Any other id could link one start to the next.
    if _SESSION_ID.admit(session_id) != session_id:
        raise ConnectError(Code.INVALID_ARGUMENT, "distinct_id: expected a version 4 UUID")
    if request.event is None or request.event.field != "start":
        raise ConnectError(Code.INVALID_ARGUMENT, "event: expected start")
    start = request.event.value
    given = {
        attribute.name: getattr(start, attribute.name.removeprefix("tbot."))
        for attribute in START.attributes
    }
    given["tbot.run_mode"] = _RUN_MODES.get(int(start.run_mode))
    decision = decide(START.name, given, allowed_helpers)
    if isinstance(decision, Refused):
        field = str(decision.attribute).removeprefix("tbot.")
        raise ConnectError(Code.INVALID_ARGUMENT, f"start.{field}: {decision.reason.value}")
    return Report(session_id, blur_time(received_at), decision)


def unavailable_error(problem: str) -> ConnectError:
    """Return the error for a report that was not delivered. The client may send it again."""
    return ConnectError(Code.UNAVAILABLE, problem)


def another_start_error() -> ConnectError:
    """Return the error for a start after the one that is reported already."""
    return ConnectError(Code.RESOURCE_EXHAUSTED, "another start was reported before")


class _Codec:
    """An official codec whose errors do not repeat the input."""

    def __init__(self, codec: Codec[Any, Any]) -> None:
        self._codec = codec

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Any) -> bytes:
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        with contextlib.suppress(Exception):  # Each codec raises its own errors.
            return self._codec.decode(data, message_class)
        raise ConnectError(Code.INVALID_ARGUMENT, f"the body: expected a {METHOD.input.__name__}")


class _JSONCodec(_Codec):
    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        too_deep = data.count(b"[") + data.count(b"{") > _MAX_JSON_BRACKETS
        return super().decode(b"" if too_deep else data, message_class)


_CODECS = (_Codec(proto_binary_codec()), _JSONCodec(proto_json_codec()))
_RESPONSE = SubmitTbotEventResponse()


class _WSGIApplication(ConnectWSGIApplication):
    path = f"/{METHOD.service_name}"

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        # Refused: the runtime would accept gRPC-Web, and fail on gRPC.
        if "grpc" in environ.get("CONTENT_TYPE", ""):
            environ["CONTENT_TYPE"] = ""
        for name, expected in _EXPECTED_HEADERS.items():
            if (value := environ.get(name)) and not expected.fullmatch(value):
                environ[name] = "other"
        return super().__call__(environ, start_response)


def wsgi_application(
    handle_report: Callable[[Request, Context], None], prefixes: Iterable[str] = ("",)
) -> ConnectWSGIApplication:
    """Return the WSGI application that responds to tbot.

    Args:
        handle_report: Called with each request. It returns once the report is delivered, or
            raises the `ConnectError` to respond with.
        prefixes: The paths that can precede `PATH`: ``/`` and a secret, or empty.
    """

    def submit(request: Request, context: Context) -> SubmitTbotEventResponse:
        handle_report(request, context)
        return _RESPONSE

    endpoint = EndpointSync.unary(method=METHOD, function=submit)
    return _WSGIApplication(
        endpoints={f"{prefix}{PATH}": endpoint for prefix in prefixes},
        read_max_bytes=MAX_REQUEST_BYTES,
        codecs=_CODECS,
    )
