"""Requests: what is answered to tbot's call and to whatever else comes, and what leaves of it."""

import contextlib
import gzip
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protobuf import Oneof
from protobuf.wkt import Timestamp

from cases import CASES, EMPTY, OTHER, WHOLE, Case, Refusal
from collectors import PATIENCE, Answer, Rotel, Standin
from tbot_otel.connect import CLOCKS_DIFFER, PATH, Context, Report, Request, read, wsgi_application
from tbot_otel.connect.tbot_pb import TbotStartEvent
from tbot_otel.events import START, StartEvent
from tbot_otel.policy import Permitted, decide
from test_anonymity import examples

ID = "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"
# What a client sends may identify someone: no answer and no report has this in it.
MARKER = "mArkEr"
PROTO = "application/proto"
JSON = "application/json"
GZIP = {"HTTP_CONTENT_ENCODING": "gzip"}
SECONDS = 1_790_000_000
NOW = SECONDS * 10**9 + 5
INT32_MAX = 2**31 - 1
KIB = 1024

# The wire by hand (https://protobuf.dev/programming-guides/encoding/), with tbot's own numbers:
# what the generated code says is tested by it.
RUN_MODES = {"one-shot": 1, "daemon": 2}
FIELDS = {
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


def varint(number: int) -> bytes:
    """A number; a negative one as its two's complement of 64 bits."""
    number &= 2**64 - 1
    result = b""
    while number > 127:
        result += bytes([number & 127 | 128])
        number >>= 7
    return result + bytes([number])


def field(number: int, value: int | str | bytes) -> bytes:
    """A field: a number as a varint, anything else with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def start(attributes: Mapping[str, object]) -> bytes:
    """A start with the values of these attributes."""
    values = ((FIELDS[name], RUN_MODES.get(str(v), v)) for name, v in attributes.items())
    return b"".join(field(number, v) for number, v in values if isinstance(v, int | str))


def message(event: bytes | None = b"", *, session: str = ID, more: bytes = b"") -> bytes:
    """A request: its session, its start if it has one, and more fields."""
    return field(1, session) + (b"" if event is None else field(3, event)) + more


def document(event: object, *, session: str = ID, **more: object) -> bytes:
    """A request in JSON."""
    return json.dumps({"distinctId": session, "start": event, **more}).encode()


class Reply(NamedTuple):
    """An answer of the protocol core: its status, Connect's code and message; and the reports."""

    status: int
    code: str
    message: str
    reports: list[Report]


def call(
    body: bytes, content_type: str = PROTO, *, method: str = "POST", path: str = PATH, **more: str
) -> Reply:
    """Give bytes to the protocol core. The marker may be in nothing that comes of them."""
    reports: list[Report] = []
    answered: list[tuple[str, list[tuple[str, str]]]] = []
    said = io.BytesIO()
    errors = io.StringIO()

    def take(request: Request, _: Context) -> None:
        reports.append(read(request, NOW))

    def start_response(
        status: str, headers: list[tuple[str, str]], _: object = None, /
    ) -> Callable[[bytes], object]:
        answered.append((status, headers))
        return said.write

    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": errors,
        **more,
    }
    said.writelines(wsgi_application(take)(environ, start_response))
    ((status, headers),) = answered
    attributes = [report.attributes for report in reports]
    assert MARKER not in f"{status}{headers}{said.getvalue()!r}{errors.getvalue()}{attributes}"
    assert not errors.getvalue()
    error = {"code": "", "message": ""}
    if int(status[:3]) != 200 and said.getvalue():
        # Connect's errors are JSON, whatever the request was.
        assert ("Content-Type", JSON) in headers
        error = json.loads(said.getvalue())
    return Reply(int(status[:3]), error["code"], error["message"], reports)


CAMEL = {
    "runMode": "RUN_MODE_DAEMON",
    "version": "18.3.0",
    "joinType": "kubernetes",
    "helper": "gha:teleport-actions/auth",
    "helperVersion": "v1.2.0",
    "destinationsOther": 1,
    "destinationsDatabase": 2,
    "destinationsKubernetes": 3,
    "destinationsApplication": 4,
}
SNAKE = {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in CAMEL.items()}
# One of each wire type, and a group.
UNKNOWN = b"".join(
    (
        field(100, 7) + field(101, MARKER),
        varint(102 << 3 | 1) + bytes(8),
        varint(103 << 3 | 5) + bytes(4),
        varint(104 << 3 | 3) + field(1, MARKER) + varint(104 << 3 | 4),
    )
)
ZIPPED = gzip.compress(message(start(WHOLE)))


@pytest.mark.parametrize(
    ("body", "content_type", "headers"),
    [
        pytest.param(message(start(WHOLE)), PROTO, {}, id="binary"),
        pytest.param(message(start(WHOLE)), f"Application/Proto; x={MARKER}", {}, id="parameter"),
        pytest.param(message(start(WHOLE) + UNKNOWN, more=UNKNOWN), PROTO, {}, id="unknown fields"),
        pytest.param(field(3, start(WHOLE)) + field(1, ID), PROTO, {}, id="another order"),
        pytest.param(
            message(start(WHOLE), session=MARKER, more=field(1, ID)), PROTO, {}, id="last"
        ),
        pytest.param(ZIPPED, PROTO, GZIP, id="gzip"),
        pytest.param(gzip.compress(document(CAMEL)), JSON, GZIP, id="gzip, JSON"),
        pytest.param(message(start(WHOLE)), PROTO, {"HTTP_CONTENT_ENCODING": ""}, id="no encoding"),
        pytest.param(
            message(start(WHOLE)), PROTO, {"HTTP_CONTENT_ENCODING": "identity"}, id="identity"
        ),
        pytest.param(document(CAMEL), JSON, {}, id="JSON"),
        pytest.param(document(CAMEL), "application/json; charset=utf-8", {}, id="JSON, charset"),
        pytest.param(document(SNAKE).replace(b"distinctId", b"distinct_id"), JSON, {}, id="snake"),
        pytest.param(document(CAMEL | {"runMode": 2}), JSON, {}, id="enum by number"),
        pytest.param(
            document({name: str(value) for name, value in CAMEL.items()}),
            JSON,
            {},
            id="int as text",
        ),
        pytest.param(document(CAMEL | {"destinationsOther": 1.0}), JSON, {}, id="int as 1.0"),
        pytest.param(
            document(CAMEL | {MARKER: [{MARKER: 1}]}, unknown={MARKER: [MARKER]}),
            *(JSON, {}),
            id="unknown fields, JSON",
        ),
        pytest.param(document(CAMEL, timestamp=None), JSON, {}, id="null"),
        *(
            pytest.param(message(start(WHOLE)), PROTO, {name: value}, id=f"{name} {value}")
            for name, value in (
                ("HTTP_CONNECT_PROTOCOL_VERSION", "1"),
                # tbot knows best when to give up: the answer is the same.
                ("HTTP_CONNECT_TIMEOUT_MS", "0"),
                ("HTTP_CONNECT_TIMEOUT_MS", "9999999999"),
                ("HTTP_ACCEPT_ENCODING", "gzip, br"),
                ("HTTP_USER_AGENT", MARKER),
                ("HTTP_X", MARKER),
            )
        ),
    ],
)
def test_taken(body: bytes, content_type: str, headers: dict[str, str]) -> None:
    """However a start is written, it is the same report, at the time of receipt."""
    status, _, _, (report,) = call(body, content_type, **headers)
    assert status == 200
    assert (report.session_id, report.timestamp) == (ID, NOW)
    assert list(report.attributes.items()) == list(WHOLE.items())


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", EMPTY),
        *((field(1, number), EMPTY) for number in (0, 3, 99, -1, INT32_MAX, 2**31)),
        ({"runMode": "RUN_MODE_ONE_SHOT"}, EMPTY | {"tbot.run_mode": "one-shot"}),
        *(
            ({"runMode": mode}, EMPTY)
            for mode in (0, 3, 99, -1, None, f"RUN_MODE_{MARKER}", "RUN_MODE_UNSPECIFIED")
        ),
        # Of a number that is too large, proto3 keeps 32 bits.
        (field(6, 2**32 + 5), EMPTY | {"tbot.destinations_other": 5}),
        ({"destinationsOther": INT32_MAX}, EMPTY | {"tbot.destinations_other": INT32_MAX}),
        ({"destinationsOther": "1e3"}, EMPTY | {"tbot.destinations_other": 1000}),
        ({"destinationsOther": None}, EMPTY),
        ({"version": f"18.3.0-dev.{MARKER}"}, EMPTY | {"tbot.version": "18.3.0-dev"}),
        ({"helper": f"{MARKER}.example.com", "helperVersion": MARKER}, EMPTY),
        ({"joinType": MARKER}, EMPTY | {"tbot.join_type": OTHER}),
        ({"version": MARKER, "helperVersion": "v1.2.0"}, EMPTY),
        # A known number of another wire type is an unknown field.
        (field(2, 5) + field(6, MARKER) + varint(7 << 3 | 5) + bytes(4), EMPTY),
    ],
)
def test_start(sent: bytes | object, expected: dict[str, str | int]) -> None:
    """What is absent is empty, what is unknown leaves as _OTHER, and what could identify, never."""
    reply = call(message(sent)) if isinstance(sent, bytes) else call(document(sent), JSON)
    assert [report.attributes for report in reply.reports] == [expected]


def fits_the_wire(case: Case) -> bool:
    """Whether a case of the policy can come over the wire."""
    for name, value in (case.attributes or {}).items():
        if name == "tbot.run_mode":
            fits = isinstance(value, str) and value in RUN_MODES
        elif name.startswith("tbot.destinations_"):
            fits = type(value) is int and -(2**31) <= value <= INT32_MAX
        else:
            fits = isinstance(value, str) and name in FIELDS
        if not fits:
            return False
    return bool(case.event_name == START.name)


@pytest.mark.parametrize("case", [*filter(fits_the_wire, CASES)], ids=lambda case: case.id)
def test_policy(case: Case) -> None:
    """What leaves of a start is what policy decides, and what it refuses is answered."""
    reply = call(message(start(case.attributes or {})))
    if isinstance(case.expected, Refusal):
        place = str(case.expected.attribute).replace("tbot.", "start.")
        problem = f"{place}: {case.expected.reason.value}"
        assert reply == (400, "invalid_argument", problem, [])
    else:
        (report,) = reply.reports
        assert list(report.attributes.items()) == list(case.expected.items())


BAD_ID = (400, "invalid_argument", "distinct_id: expected a version 4 UUID")
BAD_BODY = (400, "invalid_argument", "the body: expected a SubmitTbotEventRequest")
NO_EVENT = (400, "invalid_argument", "event: expected start")
NO_COUNT = (
    *(400, "invalid_argument"),
    "start.destinations_other: the value is not a whole number from 0 to 2147483647",
)
TOO_LARGE = (429, "resource_exhausted", "message is larger than configured max 65536")


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "expected"),
    [
        pytest.param(b"", PROTO, {}, BAD_ID, id="empty"),
        pytest.param(message(None), PROTO, {}, NO_EVENT, id="no event"),
        pytest.param(message(None, more=UNKNOWN), PROTO, {}, NO_EVENT, id="another event"),
        pytest.param(message(None, more=field(3, 5)), PROTO, {}, NO_EVENT, id="event is a number"),
        pytest.param(field(1, 5) + field(3, b""), PROTO, {}, BAD_ID, id="id is a number"),
        *(
            pytest.param(message(field(6, count)), PROTO, {}, NO_COUNT, id=f"count {count}")
            for count in (-1, 2**31)
        ),
        *(
            pytest.param(body, PROTO, {}, BAD_BODY, id=title)
            for title, body in {
                "text": MARKER.encode(),
                "JSON as binary": document({"version": MARKER}),
                "cut off": message(field(2, MARKER))[:-1],
                "cut off in a varint": message(start(WHOLE)) + b"\x80",
                "varint of 11 bytes": message() + b"\x20" + b"\xff" * 10 + b"\1",
                "longer than the body": message() + varint(100 << 3 | 2) + varint(2**63 - 1),
                "invalid UTF-8": message(field(2, MARKER.encode() + b"\xff")),
                "invalid UTF-8 in the id": field(1, b"\xff" * 36) + field(3, b""),
                "field 0": message() + b"\0\1",
                "wire type 6": message() + varint(100 << 3 | 6),
                "a group's end": message() + varint(100 << 3 | 4),
                "a group without end": message() + varint(100 << 3 | 3),
                "groups in groups": message() + varint(100 << 3 | 3) * 30_000,
                "64 KiB of zeros": bytes(64 * KIB),
            }.items()
        ),
        *(
            pytest.param(body, JSON, {}, BAD_BODY, id=f"JSON: {title}")
            for title, body in {
                "empty": b"",
                "text": MARKER.encode(),
                "binary": message(start(WHOLE)),
                "cut off": document({"version": MARKER})[:-1],
                "trailing": document({"version": MARKER}) + b"}",
                "null": b"null",
                "a list": b"[]",
                "a number": b"1",
                "a large number": b"9" * 60_000,
                "invalid UTF-8": b'{"distinctId": "\xff"}',
                "a lone surrogate": document({"version": "\ud800"}),
                "UTF-16": document({"version": MARKER}).decode().encode("utf-16"),
                "the id is a number": document({}).replace(f'"{ID}"'.encode(), b"5"),
                "start is text": document(MARKER),
                "start is a list": document([]),
                "an enum of 1.5": document({"runMode": 1.5}),
                "an enum of true": document({"runMode": True}),
                "a count of 1.5": document({"destinationsOther": 1.5}),
                "a count of true": document({"destinationsOther": True}),
                "a count of text": document({"destinationsOther": MARKER}),
                "a count over int32": document({"destinationsOther": 2**31}),
                "a version of a number": document({"version": 18}),
                "a timestamp of text": document({}, timestamp=MARKER),
                "a timestamp of a number": document({}, timestamp=SECONDS),
                "the 13th month": document({}, timestamp="2026-13-01T00:00:00Z"),
                "the year 10000": document({}, timestamp="10000-01-01T00:00:00Z"),
            }.items()
        ),
        pytest.param(document(None), JSON, {}, NO_EVENT, id="JSON: null event"),
        pytest.param(document({"destinationsOther": -1}), JSON, {}, NO_COUNT, id="JSON: count -1"),
        pytest.param(bytes(64 * KIB + 1), PROTO, {}, TOO_LARGE, id="over 64 KiB"),
        pytest.param(gzip.compress(bytes(10**7)), PROTO, GZIP, TOO_LARGE, id="gzip bomb"),
        pytest.param(b"", PROTO, GZIP, BAD_ID, id="gzip of nothing at all"),
    ],
)
def test_refused(
    body: bytes, content_type: str, headers: dict[str, str], expected: tuple[int, str, str]
) -> None:
    """A body that is no report is answered with Connect's error, which names the field to blame."""
    assert call(body, content_type, **headers) == (*expected, [])


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        *(
            pytest.param(body, GZIP, 400, "invalid_argument", id=f"gzip: {title}")
            for title, body in {
                "none": message(start(WHOLE)),
                "cut off": ZIPPED[:-9],
                "more behind it": ZIPPED + MARKER.encode(),
                "wrong checksum": ZIPPED[:-8] + bytes(8),
            }.items()
        ),
        *(
            pytest.param(
                *(message(start(WHOLE)), {"HTTP_CONTENT_ENCODING": encoding}),
                *(501, "unimplemented"),
                id=f"encoding {encoding}",
            )
            for encoding in ("br", "zstd", "gzip, gzip", "x")
        ),
        *(
            pytest.param(
                *(message(start(WHOLE)), {name: value}),
                *(400, "invalid_argument"),
                id=f"{name} {value}",
            )
            for name, values in {
                "HTTP_CONNECT_PROTOCOL_VERSION": ("", "2", "1, 1", "x"),
                "HTTP_CONNECT_TIMEOUT_MS": ("-1", "1.5", "1_0", "9" * 11, "x", "x" * 54),
            }.items()
            for value in values
        ),
    ],
)
def test_refused_header(body: bytes, headers: dict[str, str], status: int, code: str) -> None:
    """A header of Connect's that cannot be followed is answered with Connect's error."""
    reply = call(body, **headers)
    assert (reply.status, reply.code, reply.reports) == (status, code, [])


@pytest.mark.parametrize(
    ("more", "status"),
    [
        *(
            ({"content_type": content_type}, 415)
            for content_type in (
                *("", "text/plain", "application/xml", f"application/{MARKER}", MARKER),
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
    ],
)
@pytest.mark.parametrize("framed", [False, True])
def test_not_the_call(more: dict[str, str], status: int, *, framed: bool) -> None:
    """What is not tbot's call is answered by an HTTP status alone, whatever is in it."""
    body = message(start(WHOLE))
    # As the protocols that stream have it.
    frame = b"\0" + len(body).to_bytes(4) if framed else b""
    assert call(frame + body, **more) == (status, "", "", [])


@pytest.mark.parametrize(
    "session",
    [
        *("", MARKER, ID[:-1], f"{ID}0", f"{ID}\n", f" {ID}", f"{{{ID}}}", f"urn:uuid:{ID}"),
        *(ID.replace("-", ""), ID.replace("-", "_"), f"{ID}\0", f"{ID}\r\n", ID.replace("0", "g")),
        # Of the versions 1, 2, 3, 5, 6, 7, 8; of another variant; nil and max.
        *(f"0b7f1f2e-5d0c-{version}c39-8a54-3f1d9e6b7a20" for version in "1235678"),
        *(f"0b7f1f2e-5d0c-4c39-{variant}a54-3f1d9e6b7a20" for variant in "07cf"),
        *(str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))),
        # Digits and letters to Unicode.
        ID.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
        ID.replace("b", "\N{FULLWIDTH LATIN SMALL LETTER B}"),
        ID.replace("b", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"),
    ],
)
def test_no_session(session: str) -> None:
    """An id that is no version 4 UUID could follow someone from start to start: it is refused."""
    assert call(message(session=session)) == (*BAD_ID, [])
    assert call(document({}, session=session), JSON) == (*BAD_ID, [])


@pytest.mark.parametrize(
    ("session", "expected"),
    [(ID, ID), (ID.upper(), ID), ("ffffffff-ffff-4fff-bfff-ffffffffffff",) * 2],
)
def test_session(session: str, expected: str) -> None:
    """The id of a start is its session's, in lower case."""
    assert [report.session_id for report in call(message(session=session)).reports] == [expected]


LIMIT = CLOCKS_DIFFER // 10**9


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [
        (SECONDS, 0, NOW - 5),
        (SECONDS - 1, 999_999_999, NOW - 6),
        (SECONDS - LIMIT, 5, NOW - CLOCKS_DIFFER),
        (SECONDS + LIMIT, 5, NOW + CLOCKS_DIFFER),
        # Not as the type has them, and no reason to refuse a report: they are added.
        (SECONDS, -1, NOW - 6),
        (SECONDS, 10**9, NOW + 10**9 - 5),
        # Too far off.
        (SECONDS - LIMIT, 4, NOW),
        (SECONDS + LIMIT, 6, NOW),
        (0, 0, NOW),
        (-1, -1, NOW),
        *((seconds, 0, NOW) for seconds in (-62_135_596_800, 253_402_300_799, 2**33)),
        *((seconds, nanos, NOW) for seconds in (2**63 - 1, -(2**63)) for nanos in (-(2**31), 1)),
    ],
)
def test_timestamp(seconds: int, nanos: int, expected: int) -> None:
    """A start is when tbot says, unless its clock is so far off that it tells it from others."""
    body = message(more=field(2, field(1, seconds) + field(2, nanos)))
    assert [report.timestamp for report in call(body).reports] == [expected]
    direct = Request(
        distinct_id=ID,
        timestamp=Timestamp(seconds=seconds, nanos=nanos),
        event=Oneof("start", TbotStartEvent()),
    )
    assert read(direct, NOW).timestamp == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-09-21T14:13:20.000000007Z", NOW + 2),
        ("2026-09-21T16:13:20.5+02:00", NOW - 5 + 500_000_000),
        ("0001-01-01T00:00:00Z", NOW),
        ("1970-01-01T00:00:00Z", NOW),
        ("9999-12-31T23:59:59.999999999Z", NOW),
        (None, NOW),
    ],
)
def test_timestamp_in_json(text: str | None, expected: int) -> None:
    """A timestamp in JSON means what one in binary means."""
    reply = call(document({}, timestamp=text), JSON)
    assert [report.timestamp for report in reply.reports] == [expected]


def check(reply: Reply) -> None:
    """What leaves is permitted as it is; and else there is an answer of HTTP's or of Connect's."""
    assert reply.status in (200, 400, 404, 405, 415, 429, 501)
    assert len(reply.reports) == (reply.status == 200)
    assert bool(reply.code) == bool(reply.message) == (reply.status in (400, 429, 501))
    for report in reply.reports:
        identity = uuid.UUID(report.session_id)
        assert (identity.version, str(identity)) == (4, report.session_id)
        assert abs(report.timestamp - NOW) <= CLOCKS_DIFFER
        verdict = decide(START.name, report.attributes)
        assert isinstance(verdict, Permitted)
        assert not verdict.left_out
        assert (
            verdict.attributes == report.attributes == StartEvent.of(report.attributes).attributes
        )


SESSIONS = st.uuids(version=4).map(str) | st.uuids().map(str) | st.text()
TEXTS = st.text() | st.sampled_from([str(value) for value in WHOLE.values()])
INTEGERS = st.integers(-(2**64), 2**64) | st.integers(0, 9)
TIMES = st.builds(lambda *v: field(2, field(1, v[0]) + field(2, v[1])), INTEGERS, INTEGERS)
STARTS = st.lists(st.builds(field, st.integers(1, 12), TEXTS | INTEGERS | st.binary()))
MESSAGES = st.builds(
    lambda session, event, more: message(event, session=session, more=more),
    SESSIONS,
    STARTS.map(b"".join) | st.none(),
    TIMES | st.just(b""),
)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS, st.lists, max_leaves=4
)
DOCUMENTS = st.builds(
    lambda session, event, more: document(event, session=session, **more),
    SESSIONS,
    st.dictionaries(st.sampled_from([*CAMEL, *SNAKE, "x"]), VALUES) | VALUES,
    st.dictionaries(st.sampled_from(["timestamp", "x"]), VALUES),
)
WRITTEN = st.tuples(MESSAGES, st.just(PROTO)) | st.tuples(DOCUMENTS, st.just(JSON))


@examples(300)
@given(
    st.binary() | MESSAGES | DOCUMENTS,
    st.sampled_from([PROTO, JSON, "application/grpc-web", "application/connect+proto", ""]),
    st.sampled_from(["", "gzip", "identity", "br"]),
)
def test_any_bytes(body: bytes, content_type: str, encoding: str) -> None:
    """Whatever bytes come as whatever type, they are answered, and what leaves may leave."""
    check(call(body, content_type, HTTP_CONTENT_ENCODING=encoding))


@examples(300)
@given(WRITTEN, st.integers(0, 80))
def test_any_message(written: tuple[bytes, str], cut: int) -> None:
    """Whatever a message holds, and wherever it ends, what leaves of it may leave."""
    body, content_type = written
    check(call(body, content_type))
    check(call(gzip.compress(body), content_type, **GZIP))
    check(call(body[: -cut or None], content_type))


# The rest is the forwarder itself, over sockets.

SCRIPT = 'echo "$TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"; exec cat'
REPORT = message(start(WHOLE))


class Address(NamedTuple):
    """Where a forwarder listens, and the path of the call there."""

    host: str
    port: int
    path: str

    def connect(self) -> socket.socket:
        """Connect, patiently."""
        return socket.create_connection((self.host, self.port), PATIENCE)


@contextlib.contextmanager
def forwarding(endpoint: str) -> Iterator[Address]:
    """Run a command under `tbot-otel run` until the block ends, and its forwarder with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tbot_otel", "run", "--", "/bin/sh", "-c", SCRIPT],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONWARNINGS": "error",
            "TELEPORT_ANONYMOUS_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # At its end, the command reads the end of its input, and ends.
    with process:
        assert process.stdout
        url = urlsplit(process.stdout.readline().strip())
        address = Address(str(url.hostname), int(url.port or 0), url.path + PATH)
        yield address
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < deadline:
            address.connect().close()
            time.sleep(0.05)
        raise AssertionError("the forwarder has not left")


@pytest.fixture(scope="module")
def refusing() -> Iterator[Standin]:
    """A Collector that refuses everything: what was read is answered with `unavailable`."""
    with Standin(Answer(400)) as collector:
        yield collector


@pytest.fixture(scope="module")
def address(refusing: Standin) -> Iterator[Address]:
    """A forwarder that stays, as nothing is ever delivered."""
    with forwarding(refusing.endpoint) as address:
        yield address


def request(
    *headers: str, target: str = "{path}", method: str = "POST", body: bytes = REPORT
) -> bytes:
    """A request whose connection ends with its answer; ``{path}`` stands for the call's path."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Type: {PROTO}", *headers]
    if not any(header.startswith(("Content-Length", "Transfer-Encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def chunked(*chunks: bytes, extension: str = "", trailer: str = "") -> bytes:
    """A body in chunks, and its end."""
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension.encode(), chunk) for chunk in chunks]
    return b"".join(parts) + b"0\r\n" + trailer.encode() + b"\r\n"


CHUNKED = "Transfer-Encoding: chunked"
BYTES = [bytes([byte]) for byte in REPORT]
# What the core answers: the Collector of these tests refuses whatever it gets.
READ = ([503], ["unavailable"])
INVALID = ([400], ["invalid_argument"])
LARGE = ([429], ["resource_exhausted"])
# As most clients begin TLS.
HELLO = bytes.fromhex("160301 0200 010001fc 0303") + MARKER.encode() * 80


def exchange(address: Address, sent: bytes, *, half_closed: bool = False) -> bytes:
    """Send bytes, and return all that comes back until the forwarder closes the connection."""
    received = b""
    with address.connect() as connection:
        connection.sendall(sent.replace(b"{path}", address.path.encode()))
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(64 * KIB):
            received += part
    return received


def outcome(answered: bytes) -> tuple[list[int], list[str]]:
    """The status of each answer, and Connect's code of each that has one."""
    assert MARKER.encode() not in answered
    statuses = re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", answered)
    codes = re.findall(rb'"code": "([a-z_]+)"', answered)
    return [int(status) for status in statuses], [code.decode() for code in codes]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(request(), READ, id="plain"),
        pytest.param(request(CHUNKED, body=chunked(REPORT)), READ, id="chunked"),
        pytest.param(request(CHUNKED, body=chunked(*BYTES)), READ, id="a chunk per byte"),
        pytest.param(
            request(CHUNKED, body=chunked(REPORT, extension=f";{MARKER}=1", trailer="X: y\r\n")),
            READ,
            id="chunk extension and trailer",
        ),
        pytest.param(
            request("Expect: 100-continue"), ([100, 503], ["unavailable"]), id="100-continue"
        ),
        pytest.param(request(f"Expect: {MARKER}"), READ, id="another expectation"),
        pytest.param(request(f"X: {MARKER * 2500}"), READ, id="15 KiB of headers"),
        pytest.param(b"\r\n\r\n" + request(), READ, id="empty lines first"),
        pytest.param(request().replace(b"HTTP/1.1", b"HTTP/1.0"), READ, id="HTTP/1.0"),
        pytest.param(request().replace(b"Host: x\r\n", b""), READ, id="no Host"),
        pytest.param(request("Upgrade: h2c"), READ, id="upgrade"),
        *(
            pytest.param(request(target=target), READ, id=f"target {target}")
            for target in (
                *(f"{{path}}?{MARKER}=1", f"{{path}}#{MARKER}", "/{path}", "//{path}"),
                *("http://x{path}", f"https://{MARKER}:1{{path}}"),
            )
        ),
        pytest.param(request(body=b""), INVALID, id="empty"),
        pytest.param(request(body=bytes(64 * KIB)), INVALID, id="64 KiB"),
        pytest.param(request(body=bytes(64 * KIB + 1)), LARGE, id="over 64 KiB"),
        pytest.param(request(body=bytes(128 * KIB - 1)), LARGE, id="nearly 128 KiB"),
        pytest.param(
            request(CHUNKED, body=chunked(bytes(50 * KIB), bytes(50 * KIB))),
            LARGE,
            id="over 64 KiB in chunks",
        ),
        # None of these sends more than is read: its answer would be lost with the connection.
        pytest.param(request(f"Content-Length: {128 * KIB}", body=b""), ([413], []), id="128 KiB"),
        pytest.param(request(f"Content-Length: {10**99}", body=b""), ([413], []), id="10**99"),
        pytest.param(
            request(f"Content-Length: {'9' * 5000}", body=b""), ([], []), id="5000 digits"
        ),
        pytest.param(
            request(CHUNKED, body=b"40000\r\n" + bytes(128 * KIB - 7)),
            ([413], []),
            id="128 KiB chunk",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nX: ".ljust(16 * KIB, b"x"), ([431], []), id="16 KiB of headers"
        ),
        pytest.param(b"POST /".ljust(16 * KIB, b"x"), ([431], []), id="16 KiB of path"),
        pytest.param(request(CHUNKED, body=f"{MARKER}\r\n".encode()), ([400], []), id="chunk size"),
        pytest.param(request(CHUNKED, body=b"-5\r\n"), ([400], []), id="negative chunk size"),
        pytest.param(request(CHUNKED, body=b"1\r\nxyz"), ([400], []), id="chunk is longer"),
        pytest.param(request("Transfer-Encoding: gzip", body=b""), ([501], []), id="gzip, chunked"),
        *(
            pytest.param(request(f"Content-Length: {n}", body=b""), ([400], []), id=f"length {n}")
            for n in ("-1", "+1", "1_0", MARKER, "5\r\nContent-Length: 6")
        ),
        *(
            pytest.param(request(target=target, body=b""), ([404], []), id=f"target {target}")
            for target in (
                *("/", "*", MARKER, f"/{MARKER}", PATH, f"/{'0' * 32}{PATH}", "/x/..{path}"),
                *("{path}/", "{path}/.", "{path}%00", "{path};x", "http://x/"),
            )
        ),
        *(
            pytest.param(request(method=method, body=b""), ([405], []), id=method)
            for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT")
        ),
        pytest.param(request(f"Content-Type: {JSON}", body=b""), ([415], []), id="two types"),
        pytest.param(
            request(body=b"").replace(PROTO.encode(), b"application/grpc"), ([415], []), id="gRPC"
        ),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ([404], []), id="HTTP/2"),
        *(
            pytest.param(sent, ([400], []), id=f"garbage {sent[:12]!r}")
            for sent in (
                *(
                    f"{MARKER}\r\n\r\n".encode(),
                    bytes(range(256)) + b"\r\n\r\n",
                    HELLO + b"\r\n\r\n",
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
        pytest.param(request(target=f"http://[{MARKER}/", body=b""), ([], []), id="no URL"),
    ],
)
def test_request(
    sent: bytes, expected: tuple[list[int], list[str]], address: Address, refusing: Standin
) -> None:
    """A request is read as HTTP has it, or answered with an error, and the connection closed."""
    before = len(refusing.requests)
    assert outcome(exchange(address, sent)) == expected
    assert len(refusing.requests) - before == expected[0].count(503)


def test_percent_encoded(address: Address) -> None:
    """A path is the call's however it is quoted."""
    quoted = "".join(f"%{ord(character):02x}" for character in address.path[1:])
    assert outcome(exchange(address, request(target=f"/{quoted}"))) == READ


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (request(), READ),
        (request(CHUNKED, body=chunked(REPORT)), READ),
        # There is nobody left to be answered.
        (request()[:-1], ([], [])),
        (request(CHUNKED, body=chunked(REPORT)[:-2]), ([], [])),
        (b"POST / HTTP/1.1\r\n", ([], [])),
        (HELLO, ([], [])),
        (b"", ([], [])),
    ],
)
def test_half_closed(sent: bytes, expected: tuple[list[int], list[str]], address: Address) -> None:
    """A client that has said all and closes its side is answered; one that has not, is not."""
    assert outcome(exchange(address, sent, half_closed=True)) == expected


def test_byte_by_byte(address: Address) -> None:
    """A request may come in as many segments as it has bytes."""
    with address.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request().replace(b"{path}", address.path.encode()):
            connection.sendall(bytes([byte]))
        assert connection.recv(64 * KIB).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (request(), ([503, 503], ["unavailable", "unavailable"])),
        (request(CHUNKED, body=chunked(REPORT)), ([503, 503], ["unavailable", "unavailable"])),
        (request(body=b"x"), ([400, 503], ["invalid_argument", "unavailable"])),
        (request(body=bytes(64 * KIB + 1)), ([429, 503], ["resource_exhausted", "unavailable"])),
        # An answer that is not Connect's ends the connection.
        (request(target="/"), ([404], [])),
    ],
)
def test_pipelining(first: bytes, expected: tuple[list[int], list[str]], address: Address) -> None:
    """Requests in one segment are answered in their order."""
    first = first.replace(b"Connection: close\r\n", b"")
    assert outcome(exchange(address, first + request())) == expected


def test_keep_alive(address: Address) -> None:
    """A connection is kept for the next request."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("POST", address.path, REPORT, {"Content-Type": PROTO})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["code"]) == (503, "unavailable")
        assert connection.sock is first


def test_left_alone(address: Address) -> None:
    """A connection on which nothing more comes is closed, without a word."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(address.connect()) for _ in range(3)]
        for connection, sent in zip(connections, (b"", HELLO, request()[:-1]), strict=True):
            connection.sendall(sent)
        for connection in connections:
            assert connection.recv(1) == b""


def test_nested(refusing: Standin) -> None:
    """JSON of any depth is answered, and the forwarder goes on."""
    deep = 30 * KIB
    with forwarding(refusing.endpoint) as address:
        for body in (
            b"[" * deep,
            b"[" * deep + b"]" * deep,
            b'{"distinctId": ' + b"[" * deep,
            b'{"x": ' + b"[" * deep + b"]" * deep + b"}",
            b'{"start": ' * (deep // 5),
        ):
            sent = request(body=body).replace(PROTO.encode(), JSON.encode())
            assert outcome(exchange(address, sent)) == INVALID
        assert outcome(exchange(address, request())) == READ


def test_others(address: Address) -> None:
    """Whoever connects and says nothing, or not all, holds up nobody's report."""
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(address.connect()) for _ in range(120)]
        for other, sent in zip(others, (HELLO, request()[:-1], request()[:50]), strict=False):
            other.sendall(sent)
        assert outcome(exchange(address, request())) == READ
        for other in others:
            other.setblocking(False)
            # It is still there: nothing was answered only because they had gone.
            with pytest.raises(BlockingIOError):
                other.recv(1)


def test_delivered(rotel: Rotel) -> None:
    """Reports that come in one segment are delivered, each of them, and then answered."""
    sessions = [str(uuid.uuid4()) for _ in range(2)]
    first, second = (request(body=message(start(WHOLE), session=session)) for session in sessions)
    first = first.replace(b"Connection: close\r\n", b"")
    with forwarding(rotel.endpoint("http/protobuf")) as address:
        assert outcome(exchange(address, first + second)) == ([200, 200], [])
        for session in sessions:
            rotel.find(session)
