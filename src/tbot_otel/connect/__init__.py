"""tbot's own report: Connect requests in, reports out, and no socket.

tbot tells of its start in one unary call of the Connect protocol
(https://connectrpc.com/docs/protocol/), which the official runtime reads and answers here. What
the messages hold is in ``tbot.proto``.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from connectrpc.code import Code
from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import (
    ConnectASGIApplication,
    ConnectWSGIApplication,
    Endpoint,
    EndpointSync,
)

from tbot_otel.connect.tbot_pb import SubmitTbotEventRequest, SubmitTbotEventResponse
from tbot_otel.events import RESOURCE, START
from tbot_otel.policy import Refused, decide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MOST_BYTES = 64 * 1024
"""The most bytes of a request, also when it is unpacked."""

ANSWER_WITHIN = 8.0
"""The longest wait of tbot for its answer, in seconds; one that runs once gives up after 10."""

CLOCKS_DIFFER = 300 * 10**9
"""How far tbot's clock may be from ours, in nanoseconds. A clock that is wrong tells a machine
from others, so the time of receipt then stands in its place."""

# The official JSON parser overflows the stack at some thousands, and takes the process with it.
_MOST_BRACKETS = 100

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
"""The path of the call, behind the address that tbot is given."""

# Any other number is of an agent that is newer than this.
_RUN_MODES = {1: "one-shot", 2: "daemon"}
_SESSION_ID = next(attribute for attribute in RESOURCE if attribute.name == "session.id")


class Report:
    """What tbot reported of its start, as it may leave.

    Attributes:
        session_id: The version 4 UUID that tbot made for this start.
        timestamp: When the start happened, in nanoseconds since 1970-01-01 UTC.
        attributes: The attributes that policy permits, by their names.
    """

    __slots__ = ("attributes", "session_id", "timestamp")

    def __init__(
        self, session_id: str, timestamp: int, attributes: Mapping[str, str | int]
    ) -> None:
        self.session_id = session_id
        self.timestamp = timestamp
        self.attributes = attributes


def read(request: Request, received: int) -> Report:
    """Read a request.

    Args:
        request: The message.
        received: When it was received, in nanoseconds since 1970-01-01 UTC.

    Raises:
        ConnectError: ``invalid_argument``, with the field that is to blame and not its value.
    """
    session_id = request.distinct_id.lower()
    # A name in its place could follow whoever has it from start to start.
    if _SESSION_ID.admit(session_id) != session_id:
        raise ConnectError(Code.INVALID_ARGUMENT, "distinct_id: expected a version 4 UUID")
    if request.event is None or request.event.field != "start":
        raise ConnectError(Code.INVALID_ARGUMENT, "event: expected start")
    start = request.event.value
    verdict = decide(
        START.name,
        {
            "tbot.run_mode": _RUN_MODES.get(int(start.run_mode), ""),
            "tbot.version": start.version,
            "tbot.join_type": start.join_type,
            "tbot.helper": start.helper,
            "tbot.helper_version": start.helper_version,
            "tbot.destinations_other": start.destinations_other,
            "tbot.destinations_database": start.destinations_database,
            "tbot.destinations_kubernetes": start.destinations_kubernetes,
            "tbot.destinations_application": start.destinations_application,
        },
    )
    if isinstance(verdict, Refused):
        field = str(verdict.attribute).replace("tbot.", "start.", 1)
        raise ConnectError(Code.INVALID_ARGUMENT, f"{field}: {verdict.reason.value}")
    timestamp = received
    if request.timestamp is not None:
        given = request.timestamp.seconds * 10**9 + request.timestamp.nanos
        if abs(given - received) <= CLOCKS_DIFFER:
            timestamp = given
    return Report(session_id, timestamp, verdict.attributes)


def unavailable(problem: str) -> ConnectError:
    """Return the answer to a report that was not delivered, and may be sent again."""
    return ConnectError(Code.UNAVAILABLE, problem)


class _Codec:
    """An official codec that repeats nothing of what it cannot read."""

    def __init__(self, codec: Codec[Any, Any]) -> None:
        self._codec = codec

    def name(self) -> str:
        return self._codec.name()

    def encode(self, message: Any) -> bytes:
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        with contextlib.suppress(Exception):  # Each codec has errors of its own.
            return self._codec.decode(data, message_class)
        raise ConnectError(Code.INVALID_ARGUMENT, f"the body: expected a {METHOD.input.__name__}")


class _JSONCodec(_Codec):
    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        deep = data.count(b"[") + data.count(b"{") > _MOST_BRACKETS
        return super().decode(b"" if deep else data, message_class)


_CODECS = (_Codec(proto_binary_codec()), _JSONCodec(proto_json_codec()))
_TAKEN = SubmitTbotEventResponse()


class _WSGIApplication(ConnectWSGIApplication):
    path = f"/{METHOD.service_name}"

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        # The runtime would also take gRPC-Web, and fail at gRPC.
        if "grpc" in environ.get("CONTENT_TYPE", ""):
            environ["CONTENT_TYPE"] = ""
        return super().__call__(environ, start_response)


def wsgi_application(
    take: Callable[[Request, Context], None], prefix: str = ""
) -> ConnectWSGIApplication:
    """Return the WSGI application that answers tbot.

    Args:
        take: Takes a request. It returns when the report is delivered, and raises the
            `ConnectError` to answer otherwise.
        prefix: What stands before `PATH`: ``/`` and a secret.
    """

    def submit(request: Request, context: Context) -> SubmitTbotEventResponse:
        take(request, context)
        return _TAKEN

    return _WSGIApplication(
        endpoints={f"{prefix}{PATH}": EndpointSync.unary(method=METHOD, function=submit)},
        read_max_bytes=MOST_BYTES,
        codecs=_CODECS,
    )


class _ASGIApplication(ConnectASGIApplication[None]):
    path = f"/{METHOD.service_name}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # As over WSGI: the runtime would also take gRPC-Web, and fail at gRPC. It would also fail
        # at bytes that are no UTF-8, which HTTP permits.
        headers = [
            (name, value if value.isascii() else value.decode("latin-1").encode())
            for name, value in scope["headers"]
            if not (name == b"content-type" and b"grpc" in value)
        ]
        scope = {**scope, "headers": headers}
        await super().__call__(scope, receive, send)


def asgi_application(
    take: Callable[[Request, Context], Awaitable[None]], prefix: str = ""
) -> ConnectASGIApplication[None]:
    """Return the ASGI application that answers tbot.

    Args:
        take: As `wsgi_application` has it.
        prefix: As `wsgi_application` has it.
    """

    async def submit(request: Request, context: Context) -> SubmitTbotEventResponse:
        await take(request, context)
        return _TAKEN

    return _ASGIApplication(
        service=None,
        endpoints=lambda _: {f"{prefix}{PATH}": Endpoint.unary(method=METHOD, function=submit)},
        read_max_bytes=MOST_BYTES,
        codecs=_CODECS,
    )
