"""Requests with the expected responses, for the application, the forwarder and the relay."""

import gzip

import pytest

from support.cases import FULL_ATTRIBUTES
from support.messages import (
    CAMEL_CASE_START,
    CHUNKED_HEADER,
    GZIP_HEADER,
    GZIPPED_REQUEST,
    JSON,
    KIB,
    MARKER,
    NOW_SECONDS,
    PROTO,
    REPORT,
    REPORT_BYTES,
    SESSION_ID,
    SNAKE_CASE_START,
    TLS_HELLO,
    UNKNOWN_FIELDS,
    chunked,
    encode_json_request,
    encode_request,
    encode_start,
    field,
    http_request,
    varint,
)
from tbot_otel.connect import PATH

BAD_ID = (400, "invalid_argument", "distinct_id: expected a version 4 UUID")
BAD_BODY = (400, "invalid_argument", "the body: expected a SubmitTbotEventRequest")
NO_EVENT = (400, "invalid_argument", "event: expected start")
NO_COUNT = (
    *(400, "invalid_argument"),
    "start.destinations_other: the value is not a whole number, or is negative",
)
TOO_LARGE = (429, "resource_exhausted", "message is larger than configured max 4096")

# Responses of the forwarder: its Collector rejects every export.
READ = ([503], ["unavailable"])
INVALID = ([400], ["invalid_argument"])
LARGE = ([429], ["resource_exhausted"])

ACCEPTED_CASES = [
    pytest.param(encode_request(encode_start(FULL_ATTRIBUTES)), PROTO, {}, id="binary"),
    pytest.param(
        encode_request(encode_start(FULL_ATTRIBUTES)),
        f"Application/Proto; x={MARKER}",
        {},
        id="parameter",
    ),
    pytest.param(
        encode_request(encode_start(FULL_ATTRIBUTES) + UNKNOWN_FIELDS, more=UNKNOWN_FIELDS),
        PROTO,
        {},
        id="unknown fields",
    ),
    pytest.param(
        field(3, encode_start(FULL_ATTRIBUTES)) + field(1, SESSION_ID),
        PROTO,
        {},
        id="another order",
    ),
    pytest.param(
        encode_request(encode_start(FULL_ATTRIBUTES), session_id=MARKER, more=field(1, SESSION_ID)),
        PROTO,
        {},
        id="last",
    ),
    pytest.param(GZIPPED_REQUEST, PROTO, GZIP_HEADER, id="gzip"),
    pytest.param(
        gzip.compress(encode_json_request(CAMEL_CASE_START)), JSON, GZIP_HEADER, id="gzip, JSON"
    ),
    pytest.param(
        encode_request(encode_start(FULL_ATTRIBUTES)),
        PROTO,
        {"HTTP_CONTENT_ENCODING": ""},
        id="no encoding",
    ),
    pytest.param(
        encode_request(encode_start(FULL_ATTRIBUTES)),
        PROTO,
        {"HTTP_CONTENT_ENCODING": "identity"},
        id="identity",
    ),
    pytest.param(encode_json_request(CAMEL_CASE_START), JSON, {}, id="JSON"),
    pytest.param(
        encode_json_request(CAMEL_CASE_START),
        "application/json; charset=utf-8",
        {},
        id="JSON, charset",
    ),
    pytest.param(
        encode_json_request(SNAKE_CASE_START).replace(b"distinctId", b"distinct_id"),
        JSON,
        {},
        id="snake",
    ),
    pytest.param(
        encode_json_request(CAMEL_CASE_START | {"runMode": 2}), JSON, {}, id="enum by number"
    ),
    pytest.param(
        encode_json_request({name: str(value) for name, value in CAMEL_CASE_START.items()}),
        JSON,
        {},
        id="int as text",
    ),
    pytest.param(
        encode_json_request(
            CAMEL_CASE_START | {"destinationsOther": float(CAMEL_CASE_START["destinationsOther"])}
        ),
        JSON,
        {},
        id="int as a float",
    ),
    pytest.param(
        encode_json_request(CAMEL_CASE_START | {MARKER: [{MARKER: 1}]}, unknown={MARKER: [MARKER]}),
        *(JSON, {}),
        id="unknown fields, JSON",
    ),
    pytest.param(encode_json_request(CAMEL_CASE_START, timestamp=None), JSON, {}, id="null"),
    *(
        pytest.param(
            encode_request(encode_start(FULL_ATTRIBUTES)),
            PROTO,
            {name: value},
            id=f"{name} {value}",
        )
        for name, value in (
            ("HTTP_CONNECT_PROTOCOL_VERSION", "1"),
            # The forwarder ignores the timeout that tbot names.
            ("HTTP_CONNECT_TIMEOUT_MS", "0"),
            ("HTTP_CONNECT_TIMEOUT_MS", "9999999999"),
            ("HTTP_ACCEPT_ENCODING", "gzip, br"),
            ("HTTP_USER_AGENT", MARKER),
            ("HTTP_X", MARKER),
        )
    ),
]


REFUSED_CASES = [
    pytest.param(b"", PROTO, {}, BAD_ID, id="empty"),
    pytest.param(encode_request(None), PROTO, {}, NO_EVENT, id="no event"),
    pytest.param(
        encode_request(None, more=UNKNOWN_FIELDS), PROTO, {}, NO_EVENT, id="another event"
    ),
    pytest.param(
        encode_request(None, more=field(3, 5)), PROTO, {}, NO_EVENT, id="event is a number"
    ),
    pytest.param(field(1, 5) + field(3, b""), PROTO, {}, BAD_ID, id="id is a number"),
    *(
        pytest.param(encode_request(field(6, count)), PROTO, {}, NO_COUNT, id=f"count {count}")
        for count in (-1, 2**31)
    ),
    *(
        pytest.param(body, PROTO, {}, BAD_BODY, id=title)
        for title, body in {
            "text": MARKER.encode(),
            "JSON as binary": encode_json_request({"version": MARKER}),
            "cut off": encode_request(field(2, MARKER))[:-1],
            "cut off in a varint": encode_request(encode_start(FULL_ATTRIBUTES)) + b"\x80",
            "varint of 11 bytes": encode_request() + b"\x20" + b"\xff" * 10 + b"\1",
            "longer than the body": encode_request() + varint(100 << 3 | 2) + varint(2**63 - 1),
            "invalid UTF-8": encode_request(field(2, MARKER.encode() + b"\xff")),
            "invalid UTF-8 in the id": field(1, b"\xff" * 36) + field(3, b""),
            "field 0": encode_request() + b"\0\1",
            "wire type 6": encode_request() + varint(100 << 3 | 6),
            "a group's end": encode_request() + varint(100 << 3 | 4),
            "a group without end": encode_request() + varint(100 << 3 | 3),
            "groups in groups": encode_request() + varint(100 << 3 | 3) * 2_000,
            "4 KiB of zeros": bytes(4 * KIB),
        }.items()
    ),
    *(
        pytest.param(body, JSON, {}, BAD_BODY, id=f"JSON: {title}")
        for title, body in {
            "empty": b"",
            "text": MARKER.encode(),
            "binary": encode_request(encode_start(FULL_ATTRIBUTES)),
            "cut off": encode_json_request({"version": MARKER})[:-1],
            "trailing": encode_json_request({"version": MARKER}) + b"}",
            "null": b"null",
            "a list": b"[]",
            "a number": b"1",
            "a large number": b"9" * 4_000,
            "invalid UTF-8": b'{"distinctId": "\xff"}',
            "a lone surrogate": encode_json_request({"version": "\ud800"}),
            "UTF-16": encode_json_request({"version": MARKER}).decode().encode("utf-16"),
            "the id is a number": encode_json_request({}).replace(f'"{SESSION_ID}"'.encode(), b"5"),
            "start is text": encode_json_request(MARKER),
            "start is a list": encode_json_request([]),
            "an enum of 1.5": encode_json_request({"runMode": 1.5}),
            "an enum of true": encode_json_request({"runMode": True}),
            "a count of 1.5": encode_json_request({"destinationsOther": 1.5}),
            "a count of true": encode_json_request({"destinationsOther": True}),
            "a count of text": encode_json_request({"destinationsOther": MARKER}),
            "a count over int32": encode_json_request({"destinationsOther": 2**31}),
            "a version of a number": encode_json_request({"version": 18}),
            "a timestamp of text": encode_json_request({}, timestamp=MARKER),
            "a timestamp of a number": encode_json_request({}, timestamp=NOW_SECONDS),
            "the 13th month": encode_json_request({}, timestamp="2026-13-01T00:00:00Z"),
            "the year 10000": encode_json_request({}, timestamp="10000-01-01T00:00:00Z"),
        }.items()
    ),
    pytest.param(encode_json_request(None), JSON, {}, NO_EVENT, id="JSON: null event"),
    pytest.param(
        encode_json_request({"destinationsOther": -1}), JSON, {}, NO_COUNT, id="JSON: count -1"
    ),
    pytest.param(bytes(4 * KIB + 1), PROTO, {}, TOO_LARGE, id="over 4 KiB"),
    pytest.param(gzip.compress(bytes(10**7)), PROTO, GZIP_HEADER, TOO_LARGE, id="gzip bomb"),
    pytest.param(b"", PROTO, GZIP_HEADER, BAD_ID, id="gzip of nothing at all"),
]


REFUSED_HEADER_CASES = [
    *(
        pytest.param(body, GZIP_HEADER, 400, "invalid_argument", id=f"gzip: {title}")
        for title, body in {
            "none": encode_request(encode_start(FULL_ATTRIBUTES)),
            "cut off": GZIPPED_REQUEST[:-9],
            "more behind it": GZIPPED_REQUEST + MARKER.encode(),
            "wrong checksum": GZIPPED_REQUEST[:-8] + bytes(8),
        }.items()
    ),
    *(
        pytest.param(
            *(encode_request(encode_start(FULL_ATTRIBUTES)), {"HTTP_CONTENT_ENCODING": encoding}),
            *(501, "unimplemented"),
            id=f"encoding {encoding}",
        )
        for encoding in ("br", "zstd", "gzip, gzip", MARKER)
    ),
    *(
        pytest.param(
            *(encode_request(encode_start(FULL_ATTRIBUTES)), {name: value}),
            *(400, "invalid_argument"),
            id=f"{name} {value}",
        )
        for name, values in {
            "HTTP_CONNECT_PROTOCOL_VERSION": ("", "2", "1, 1", MARKER),
            "HTTP_CONNECT_TIMEOUT_MS": ("-1", "1.5", "1_0", "9" * 11, MARKER, "x" * 54),
        }.items()
        for value in values
    ),
]


NOT_THE_CALL_CASES = [
    *(
        ({"content_type": content_type}, 415)
        for content_type in (
            *(None, "", "text/plain", "application/xml", f"application/{MARKER}", MARKER),
            *("application/connect+proto", "application/connect+json"),
            *("application/grpc", f"application/grpc+{MARKER}", "application/grpc-web"),
            *("application/grpc-web+proto", "application/grpc-web-text"),
        )
    ),
    *(
        ({"method": method}, 405)
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", MARKER)
    ),
    ({"method": "GET", "QUERY_STRING": f"encoding=json&message={{}}&x={MARKER}"}, 405),
    *(
        ({"path": path}, 404)
        for path in ("", "/", f"/{MARKER}", f"{PATH}/", PATH.lower(), f"/{MARKER}{PATH}")
    ),
]


HTTP_CASES = [
    pytest.param(http_request(), READ, id="plain"),
    pytest.param(http_request(CHUNKED_HEADER, body=chunked(REPORT)), READ, id="chunked"),
    pytest.param(
        http_request(CHUNKED_HEADER, body=chunked(*REPORT_BYTES)), READ, id="a chunk per byte"
    ),
    pytest.param(
        http_request(
            CHUNKED_HEADER, body=chunked(REPORT, extension=f";{MARKER}=1", trailer="X: y\r\n")
        ),
        READ,
        id="chunk extension and trailer",
    ),
    pytest.param(
        http_request("Expect: 100-continue"), ([100, 503], ["unavailable"]), id="100-continue"
    ),
    pytest.param(http_request(f"Expect: {MARKER}"), READ, id="another expectation"),
    pytest.param(http_request(f"X: {MARKER * 512}"), READ, id="3 KiB of headers"),
    pytest.param(b"\r\n\r\n" + http_request(), READ, id="empty lines first"),
    pytest.param(http_request().replace(b"HTTP/1.1", b"HTTP/1.0"), READ, id="HTTP/1.0"),
    pytest.param(http_request().replace(b"Host: x\r\n", b""), READ, id="no Host"),
    pytest.param(http_request("Upgrade: h2c"), READ, id="upgrade"),
    *(
        pytest.param(http_request(target=target), READ, id=f"target {target}")
        for target in (
            *(f"{{path}}?{MARKER}=1", f"{{path}}#{MARKER}", "/{path}", "//{path}"),
            *("http://x{path}", f"https://{MARKER}:1{{path}}"),
        )
    ),
    pytest.param(http_request(body=b""), INVALID, id="empty"),
    pytest.param(http_request(body=bytes(4 * KIB)), INVALID, id="4 KiB"),
    pytest.param(http_request(body=bytes(4 * KIB + 1)), LARGE, id="over 4 KiB"),
    pytest.param(http_request(body=bytes(8 * KIB - 1)), LARGE, id="nearly 8 KiB"),
    pytest.param(
        http_request(CHUNKED_HEADER, body=chunked(bytes(3 * KIB), bytes(3 * KIB))),
        LARGE,
        id="over 4 KiB in chunks",
    ),
    # None of these sends more than the server reads: the reset would discard the response.
    pytest.param(http_request(f"Content-Length: {8 * KIB}", body=b""), ([413], []), id="8 KiB"),
    pytest.param(http_request(f"Content-Length: {10**99}", body=b""), ([413], []), id="10**99"),
    pytest.param(
        http_request(CHUNKED_HEADER, body=b"4000\r\n" + bytes(8 * KIB - 6)),
        ([413], []),
        id="8 KiB chunk",
    ),
    pytest.param(
        http_request(CHUNKED_HEADER, body=f"{MARKER}\r\n".encode()), ([400], []), id="chunk size"
    ),
    pytest.param(
        http_request(CHUNKED_HEADER, body=b"-5\r\n"), ([400], []), id="negative chunk size"
    ),
    pytest.param(http_request(CHUNKED_HEADER, body=b"1\r\nxyz"), ([400], []), id="chunk is longer"),
    pytest.param(
        http_request("Transfer-Encoding: gzip", body=b""), ([501], []), id="gzip, chunked"
    ),
    *(
        pytest.param(http_request(f"Content-Length: {n}", body=b""), ([400], []), id=f"length {n}")
        for n in ("-1", "+1", "1_0", MARKER, "5\r\nContent-Length: 6")
    ),
    *(
        pytest.param(http_request(target=target, body=b""), ([404], []), id=f"target {target}")
        for target in (
            *("/", "*", MARKER, f"/{MARKER}", PATH, f"/{'0' * 32}{PATH}", "/x/..{path}"),
            *("{path}/", "{path}/.", "{path}%00", "{path};x", "http://x/"),
        )
    ),
    *(
        pytest.param(http_request(method=method, body=b""), ([405], []), id=method)
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT")
    ),
    pytest.param(http_request(f"Content-Type: {JSON}", body=b""), ([415], []), id="two types"),
    pytest.param(
        http_request(body=b"").replace(PROTO.encode(), b"application/grpc"), ([415], []), id="gRPC"
    ),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ([404], []), id="HTTP/2"),
    *(
        pytest.param(sent, ([400], []), id=f"garbage {sent[:12]!r}")
        for sent in (
            *(
                f"{MARKER}\r\n\r\n".encode(),
                bytes(range(256)) + b"\r\n\r\n",
                TLS_HELLO + b"\r\n\r\n",
            ),
            *(
                f"{MARKER} / HTTP/1.1 x\r\n\r\n".encode(),
                b"GET /\r\n\r\n\r\n".replace(b" ", b""),
            ),
        )
    ),
    *(
        pytest.param(
            f"POST / HTTP/1.1\r\n{header}\r\n\r\n".encode(),
            ([400], []),
            id=f"header {header!r}",
        )
        for header in (*(f"{MARKER}", " x: x", "X: x\ny", f"X : {MARKER}", f": {MARKER}"),)
    ),
    pytest.param(
        f"{MARKER.lower()} / HTTP/1.1\r\n\r\n".encode(), ([400], []), id="lower-case method"
    ),
    pytest.param(http_request(target=f"http://[{MARKER}/", body=b""), ([], []), id="no URL"),
]
