"""Why a call was not acknowledged."""

from typing import NamedTuple

from connectrpc.code import Code

from tbot_otel.connect import MAX_REQUEST_BYTES
from tbot_otel.otlp.responses import TIMED_OUT


class Problem(NamedTuple):
    """Why a call was not acknowledged.

    Attributes:
        reason: A short name for metrics.
        code: The code of the response (https://connectrpc.com/docs/protocol/#error-codes).
        message: The text of the response.
    """

    reason: str
    code: Code
    message: str

    @property
    def http_status(self) -> int:
        """The HTTP status of the code, from Connect's specification; 499 as its runtime has it."""
        return _HTTP_STATUSES[self.code]


_HTTP_STATUSES = {
    Code.CANCELED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}

TOO_MANY_CALLS = Problem("too_many_calls", Code.RESOURCE_EXHAUSTED, "too many calls are in flight")
TOO_MANY_UNREAD = Problem(
    "too_many_unread", Code.RESOURCE_EXHAUSTED, "too many calls wait for their body"
)
COLLECTOR_TOO_SLOW = Problem(
    "collector_too_slow", Code.RESOURCE_EXHAUSTED, "the Collector would respond too late"
)
TOO_LARGE = Problem(
    "too_large",
    Code.RESOURCE_EXHAUSTED,
    # As the runtime says it of a decompressed body.
    f"message is larger than configured max {MAX_REQUEST_BYTES}",
)
BODY_TIMEOUT = Problem("body_timeout", Code.CANCELED, "the body did not arrive in time")
CALL_TIMEOUT = Problem("call_timeout", Code.DEADLINE_EXCEEDED, "the call timed out")
COLLECTOR_TIMEOUT = Problem("unavailable", Code.UNAVAILABLE, TIMED_OUT)


def unavailable(message: str) -> Problem:
    """Return the problem of a report that was not delivered."""
    return Problem("unavailable", Code.UNAVAILABLE, message)
