"""What a response says of an export, and which reason is kept."""

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from support.otlp import partial_success
from tbot_otel import Status
from tbot_otel.otlp.responses import ResponseObserver, describe_error

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
REJECTS = partial_success(2).SerializeToString()
UNKNOWN_FIELD = b"\x7a\x01x"

RESPONSES: list[tuple[int, str, bytes | None, Status]] = [
    (200, "", b"", Status.DELIVERED),
    (200, PROTOBUF, b"", Status.DELIVERED),
    (200, "APPLICATION/X-Protobuf; charset=utf-8", b"", Status.DELIVERED),
    (200, JSON, b"", Status.DELIVERED),
    (200, JSON, b"{}", Status.DELIVERED),
    (200, "Application/JSON;charset=utf-8", b'{"partialSuccess":{}}', Status.DELIVERED),
    (200, JSON, b'{"partialSuccess":null,"new":1}', Status.DELIVERED),
    (200, JSON, b'{"partial_success":{"rejected_log_records":"0"}}', Status.DELIVERED),
    (200, PROTOBUF, partial_success(0).SerializeToString(), Status.DELIVERED),
    (200, PROTOBUF, partial_success(0).SerializeToString() + UNKNOWN_FIELD, Status.DELIVERED),
    # These do not say whether the Collector accepted it.
    (204, "", b"", Status.UNOBSERVED),
    (202, PROTOBUF, b"", Status.UNOBSERVED),
    (200, "text/html", b"", Status.UNOBSERVED),
    (200, "Text/Plain; charset=utf-8", b"", Status.UNOBSERVED),
    (200, JSON, b'{"error": "invalid token"}', Status.UNOBSERVED),
    (200, "Application/Json", b'{"errors": true}', Status.UNOBSERVED),
    (200, PROTOBUF, UNKNOWN_FIELD, Status.UNOBSERVED),
    # These do.
    (200, PROTOBUF, REJECTS, Status.FAILED),
    (200, "", REJECTS, Status.FAILED),
    (200, f"{JSON}; x=y", b'{"partialSuccess":{"rejectedLogRecords":"2"}}', Status.FAILED),
    (200, JSON, b'{"partial_success":{"rejected_log_records":2}}', Status.FAILED),
    # These are not from an OTLP receiver.
    (200, "text/html", b"<html>", Status.FAILED),
    (200, "TEXT/HTML", b"It works!", Status.FAILED),
    (200, PROTOBUF, b"<html>", Status.FAILED),
    (200, PROTOBUF, None, Status.FAILED),
    (200, JSON, b"{", Status.FAILED),
    (200, JSON, b"[]", Status.FAILED),
    (200, JSON, b'"ok"', Status.FAILED),
    (200, JSON, b"[" * 100_000, Status.FAILED),
    (200, JSON, b'{"partialSuccess":{"rejectedLogRecords":"x"}}', Status.FAILED),
    (200, JSON, b'{"partialSuccess":1}', Status.FAILED),
    (101, "", b"", Status.FAILED),
    (302, "", b"", Status.FAILED),
]


@pytest.mark.parametrize(("status", "content_type", "body", "expected"), RESPONSES)
def test_http(status: int, content_type: str, body: bytes | None, expected: Status) -> None:
    """A response is a delivery only if it says so."""
    observer = ResponseObserver()
    observer.observe_http(status, content_type, body)
    assert observer.outcome is not None
    assert observer.outcome.status is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Status.DELIVERED),
        (UNKNOWN_FIELD, Status.UNOBSERVED),
        (REJECTS, Status.FAILED),
    ],
)
def test_grpc(body: bytes, expected: Status) -> None:
    """Over gRPC too, a message without a field of a response does not say it."""
    observer = ResponseObserver()
    observer.observe_grpc(ExportLogsServiceResponse.FromString(body))
    assert observer.outcome is not None
    assert observer.outcome.status is expected


def test_last_cause() -> None:
    """The last cause of a failure is kept when time runs out afterwards."""
    observer = ResponseObserver()
    for reason, is_timeout, expected in (
        ("too slow", True, "too slow"),
        ("refused", False, "refused"),
        ("too slow", True, "refused"),
        ("reset", False, "reset"),
    ):
        observer.fail(reason, is_timeout=is_timeout)
        assert observer.outcome is not None
        assert observer.outcome.reason == expected
    observer.reset()
    assert observer.outcome is None


def test_described_error() -> None:
    """An error is described by its type and the module that raised it, without its text."""
    with pytest.raises(ValueError, match="s3cret") as raised:
        int("s3cret")
    assert describe_error(raised.value) == f"ValueError in {__name__}"
    assert describe_error(KeyError("s3cret")) == "KeyError"
