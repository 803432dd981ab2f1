"""Decodes OTLP/protobuf, each export after its length."""

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tbot_otel.report.otlp_json import Unreadable
from tbot_otel.report.reader import LENGTH_BYTES

MAX_MESSAGE_TAGS = 4_000_000
"""The most tags of a message: more take too much memory. A start has about 60 of them."""
SESSION_ID_PREFIX = b"\n\nsession.id\x12&\n$"
"""What is before the session id in a resource."""

_MAX_UNCHECKED_BYTES = 4 * 2**20


def length_of(messages: bytes) -> int:
    """Return the number of messages."""
    return sum(1 for _ in _split(messages))


def _split(messages: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(messages):
        start = position + LENGTH_BYTES
        position = start + int.from_bytes(messages[position:start])
        yield messages[start:position]


def read_exports(messages: bytes) -> Iterator[LogsData | Unreadable]:
    """Decode messages."""
    for position, message in enumerate(_split(messages)):
        # The tags of the messages within it.
        is_large = len(message) > _MAX_UNCHECKED_BYTES
        if is_large and sum(map(message.count, b"\n\x12\x32")) > MAX_MESSAGE_TAGS:
            yield Unreadable(position)
        else:
            try:
                yield LogsData.FromString(message)
            except DecodeError:
                yield Unreadable(position)


def has_other_signal(_export: LogsData) -> bool:
    """Return False: the other signals have the same fields, with records of another event."""
    return False


def resource_of(logs: ResourceLogs) -> bytes:
    """Return a resource as it is encoded."""
    return logs.resource.SerializeToString()


def attributes_of(record: LogRecord) -> bytes:
    """Return a record without its time: most records of the same start values are then equal."""
    record.ClearField("time_unix_nano")
    record.ClearField("observed_time_unix_nano")
    return record.SerializeToString()


def time_of(record: LogRecord) -> int:
    """Return a record's time in nanoseconds since 1970; 0 if it is not known."""
    for time in (record.time_unix_nano, record.observed_time_unix_nano):
        # One over 2**63 is from before 1970.
        if 0 < time < 2**63:
            return time
    return 0


def decode_resource(text: bytes) -> dict[str, object] | None:
    """Return the attributes of a resource; None if they are not OTLP."""
    try:
        return _to_dict(Resource.FromString(text).attributes)
    except DecodeError:
        return None


def decode_attributes(text: bytes) -> dict[str, object] | None:
    """Return the attributes of a record."""
    return _to_dict(LogRecord.FromString(text).attributes)


def _to_dict(attributes: Iterable[KeyValue]) -> dict[str, object]:
    """Return attributes: strings, ints, None for an empty value, or what no attribute can have."""
    return {
        item.key: getattr(item.value, name) if (name := item.value.WhichOneof("value")) else None
        for item in attributes
    }
