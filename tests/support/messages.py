"""Requests of tbot, encoded here: their fields, bodies and HTTP."""

import gzip
import json
import re
import uuid
from collections.abc import Mapping

from support.cases import FULL_ATTRIBUTES, received_attributes

SESSION_ID = "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"
# A value that could identify someone: no response and no report may contain it.
MARKER = "mArkEr"
# Content types.
PROTO = "application/proto"
JSON = "application/json"

GZIP_HEADER = {"HTTP_CONTENT_ENCODING": "gzip"}
NOW_SECONDS = 1_790_000_000
NOW = NOW_SECONDS * 10**9 + 5
"""The time of receipt, in nanoseconds."""
INT32_MAX = 2**31 - 1
KIB = 1024

# The wire format (https://protobuf.dev/programming-guides/encoding/), with tbot's own numbers: the
# generated code is tested against it.
RUN_MODES = {"one-shot": 1, "daemon": 2}
FIELD_NUMBERS = {
    "tbot.run_mode": 1,
    "tbot.version": 2,
    "tbot.join_type": 3,
    "tbot.helper": 4,
    "tbot.helper_version": 5,
    "tbot.destinations_other": 6,
    "tbot.destinations_database": 7,
    "tbot.destinations_kubernetes": 8,
    "tbot.destinations_application": 9,
}


def new_session_id() -> str:
    """A new session id, in tbot's form."""
    return str(uuid.uuid4())


def varint(number: int) -> bytes:
    """Encode a number; a negative one as its two's complement of 64 bits."""
    number &= 2**64 - 1
    result = b""
    while number > 127:
        result += bytes([number & 127 | 128])
        number >>= 7
    return result + bytes([number])


def field(number: int, value: int | str | bytes) -> bytes:
    """Encode a field: a number as a varint, text or bytes with the length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def encode_start(attributes: Mapping[str, object]) -> bytes:
    """Encode a start with the values of these attributes."""
    # test_registry reports an attribute of the registry that has no number.
    values = [
        (FIELD_NUMBERS[name], RUN_MODES.get(str(value), value))
        for name, value in attributes.items()
        if name in FIELD_NUMBERS
    ]
    return b"".join(field(number, v) for number, v in values if isinstance(v, int | str))


def encode_request(
    event: bytes | None = b"", *, session_id: str = SESSION_ID, more: bytes = b""
) -> bytes:
    """Encode a request: its session id, its start if it has one, and more fields."""
    return field(1, session_id) + (b"" if event is None else field(3, event)) + more


def encode_json_request(event: object, *, session_id: str = SESSION_ID, **more: object) -> bytes:
    """Encode a request in JSON."""
    return json.dumps({"distinctId": session_id, "start": event, **more}).encode()


SNAKE_CASE_START = {
    name.removeprefix("tbot."): value
    for name, value in FULL_ATTRIBUTES.items()
    if name in FIELD_NUMBERS
} | {"run_mode": "RUN_MODE_DAEMON"}
CAMEL_CASE_START = {
    re.sub("_([a-z])", lambda match: match[1].upper(), name): value
    for name, value in SNAKE_CASE_START.items()
}
# One of each wire type, and a group.
UNKNOWN_FIELDS = b"".join(
    (
        field(100, 7) + field(101, MARKER),
        varint(102 << 3 | 1) + bytes(8),
        varint(103 << 3 | 5) + bytes(4),
        varint(104 << 3 | 3) + field(1, MARKER) + varint(104 << 3 | 4),
    )
)
GZIPPED_REQUEST = gzip.compress(encode_request(encode_start(FULL_ATTRIBUTES)))
REPORT = encode_request(encode_start(FULL_ATTRIBUTES))
REPORT_ATTRIBUTES = received_attributes(FIELD_NUMBERS)
"""The attributes that leave for that report."""


def http_request(
    *headers: str, target: str = "{path}", method: str = "POST", body: bytes = REPORT
) -> bytes:
    """An HTTP request with ``Connection: close``; ``{path}`` stands for the path of the call."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Type: {PROTO}", *headers]
    if not any(header.startswith(("Content-Length", "Transfer-Encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def chunked(*chunks: bytes, extension: str = "", trailer: str = "") -> bytes:
    """Encode a body in chunks, with its end."""
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension.encode(), chunk) for chunk in chunks]
    return b"".join(parts) + b"0\r\n" + trailer.encode() + b"\r\n"


CHUNKED_HEADER = "Transfer-Encoding: chunked"
REPORT_BYTES = [bytes([byte]) for byte in REPORT]
# The first bytes of TLS.
TLS_HELLO = bytes.fromhex("160301 0200 010001fc 0303") + MARKER.encode() * 80
