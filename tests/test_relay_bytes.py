"""The relay and the bytes of a connection: Connect's rules, the core's answers, and a fuzzer.

``HYPOTHESIS_PROFILE=long`` fuzzes for some minutes, and ``FUZZ_SEED`` with the seed that is named.
"""

import contextlib
import gzip
import http.client
import json
import os
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

import test_requests
from cases import WHOLE
from collectors import PATIENCE, Answer, Standin
from tbot_otel.connect import PATH
from test_anonymity import examples
from test_relay import LONG, Relay, eventually, new, relaying
from test_requests import (
    BAD_BODY,
    BAD_ID,
    CAMEL,
    CHUNKED,
    DOCUMENTS,
    ID,
    INVALID,
    JSON,
    KIB,
    LARGE,
    MARKER,
    MESSAGES,
    NO_EVENT,
    PROTO,
    REPORT,
    TOO_LARGE,
    call,
    chunked,
    document,
    field,
    message,
    outcome,
    request,
    start,
    varint,
)


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    """A Collector that takes everything."""
    with Standin(Answer()) as collector:
        yield collector


@pytest.fixture(scope="module")
def relay(standin: Standin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that stays, in front of it."""
    with relaying(tmp_path_factory.mktemp("relay"), standin.endpoint) as relay:
        yield relay


@pytest.fixture(autouse=True)
def quiet(relay: Relay) -> Iterator[None]:
    """Whatever a test sends, the relay prints nothing of it, nor a traceback."""
    before = len(relay.said())
    yield
    # It has come by when a later call is answered.
    assert relay.get("/healthz") == (200, "ok")
    printed = relay.said()[before:]
    assert "Traceback" not in printed, printed
    assert MARKER not in printed


class Said(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[int, str, str]:
        """The status, and Connect's code and message; all of an error that is Connect's is JSON."""
        if self.status == 200 or not self.body:
            return self.status, "", ""
        assert self.headers["content-type"] == JSON
        assert "content-encoding" not in self.headers
        said = json.loads(self.body)
        assert said.keys() == {"code", "message"}
        return self.status, said["code"], said["message"]


def ask(
    relay: Relay,
    body: bytes = REPORT,
    content_type: str | None = PROTO,
    *,
    method: str = "POST",
    path: str = PATH,
    **headers: str,
) -> Said:
    """Send a request with headers by their WSGI names, on a connection of its own."""
    connection = http.client.HTTPConnection(relay.host, relay.port, timeout=PATIENCE)
    named = {name.removeprefix("HTTP_").replace("_", "-"): v for name, v in headers.items()}
    if content_type is not None:
        named["Content-Type"] = content_type
    with contextlib.closing(connection):
        # What is too large is answered before all of it is read.
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, path, body, named)
        answer = connection.getresponse()
        received = {name.lower(): value for name, value in answer.getheaders()}
        return Said(answer.status, received, answer.read())


def exchange(relay: Relay, sent: bytes) -> bytes:
    """Send bytes, and return all that comes back until the relay closes the connection."""
    received = b""
    # It may close before it has read all.
    with relay.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(sent.replace(b"{path}", PATH.encode()))
        while part := connection.recv(64 * KIB):
            received += part
    return received


def delivered(standin: Standin, since: int) -> list[tuple[str, dict[str, str | int]]]:
    """The session and the attributes of each report that was exported since."""
    every = []
    for sent in standin.requests[since:]:
        for logs in ExportLogsServiceRequest.FromString(sent.body).resource_logs:
            values = {a.key: a.value.string_value for a in logs.resource.attributes}
            record = logs.scope_logs[0].log_records[0]
            attributes = {
                a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in record.attributes
            }
            every.append((values["session.id"], attributes))
    return every


def table(test: Callable[..., None]) -> tuple[Any, ...]:
    """What the last of a test's tables parametrizes: the names and the cases."""
    return tuple(vars(test)["pytestmark"][-1].args)


@pytest.mark.parametrize(*table(test_requests.test_taken))
def test_taken(
    relay: Relay, standin: Standin, body: bytes, content_type: str, headers: dict[str, str]
) -> None:
    """What the core takes the relay takes, and answers with an empty message of the same codec."""
    before = len(standin.requests)
    said = ask(relay, body, content_type, **headers)
    if headers.get("HTTP_CONNECT_TIMEOUT_MS") == "0":
        # Here the runtime keeps the time that is given, and it is over.
        assert said.error == (504, "deadline_exceeded", "Request timed out")
        return
    as_json = content_type.startswith(JSON)
    empty = b"{}" if as_json else b""
    encoding = "gzip" if "gzip" in headers.get("HTTP_ACCEPT_ENCODING", "") else "identity"
    assert said.status == 200
    assert said.headers["content-type"] == (JSON if as_json else PROTO)
    assert said.headers["content-encoding"] == encoding
    assert (gzip.decompress(said.body) if encoding == "gzip" else said.body) == empty
    assert delivered(standin, before) == [(ID, WHOLE)]


@pytest.mark.parametrize(*table(test_requests.test_refused))
def test_refused(
    relay: Relay,
    body: bytes,
    content_type: str,
    headers: dict[str, str],
    expected: tuple[int, str, str],
) -> None:
    """What the core refuses, the relay answers with the same error."""
    assert ask(relay, body, content_type, **headers).error == expected


@pytest.mark.parametrize(*table(test_requests.test_refused_header))
def test_refused_header(
    relay: Relay, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """A header of Connect's that cannot be followed is answered with the error that names it."""
    found, named, text = ask(relay, body, **headers).error
    assert (found, named) == (status, code)
    assert text


NOT_THE_CALL = [
    case
    for mark in vars(test_requests.test_not_the_call)["pytestmark"]
    if mark.args[0] != "framed"
    for case in mark.args[1]
]


@pytest.mark.parametrize(("more", "status"), NOT_THE_CALL)
def test_not_the_call(relay: Relay, standin: Standin, more: dict[str, str], status: int) -> None:
    """What is not tbot's call has an HTTP status alone, and the header that says what would be."""
    more = {"path": PATH, **more}
    query = more.pop("QUERY_STRING", "")
    more["path"] = (more["path"] or "/") + (query and f"?{query}")
    before = len(standin.requests)
    said = ask(relay, **more)  # type: ignore[arg-type]  # of these, the body is none
    assert (said.status, said.body) == (status, b"")
    assert said.headers.get("allow") == ("POST" if status == 405 else None)
    types = f"{JSON}, {PROTO}" if status == 415 else None
    assert said.headers.get("accept-post") == types
    assert not delivered(standin, before)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        *(({"HTTP_CONNECT_PROTOCOL_VERSION": value}, (200, "")) for value in ("1", " 1 ")),
        *(({"HTTP_CONNECT_TIMEOUT_MS": value}, (200, "")) for value in ("", "9000", "0000009000")),
        ({"HTTP_CONNECT_TIMEOUT_MS": "00000009000"}, (400, "invalid_argument")),
        ({"HTTP_CONTENT_ENCODING": "GZIP"}, (501, "unimplemented")),
        ({"content_type": "APPLICATION/PROTO"}, (200, "")),
        ({"content_type": f" {PROTO} ; a=b; c"}, (200, "")),
        ({"content_type": "application/protobuf"}, (415, "")),
        ({"content_type": "application/x-proto"}, (415, "")),
        # The runtime takes a codec's name alone, as its model does.
        ({"content_type": "proto"}, (200, "")),
        ({"content_type": None}, (415, "")),
    ],
)
def test_header(relay: Relay, headers: dict[str, str], expected: tuple[int, str]) -> None:
    """Connect's headers are optional, and read as the runtime has them."""
    assert ask(relay, **headers).error[:2] == expected  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        *((value, "gzip") for value in ("gzip", "br, gzip", "zstd,gzip,identity")),
        *((value, "identity") for value in ("", "identity, gzip", "br", "*", "gzip;q=0", "GZIP")),
    ],
)
@pytest.mark.parametrize("content_type", [PROTO, JSON])
def test_accepted(relay: Relay, accepted: str, encoding: str, content_type: str) -> None:
    """An answer has the first encoding that is accepted and known; an error has none."""
    body = document(CAMEL) if content_type == JSON else REPORT
    said = ask(relay, body, content_type, HTTP_ACCEPT_ENCODING=accepted)
    assert (said.status, said.headers["content-encoding"]) == (200, encoding)
    assert said.headers["vary"] == "Accept-Encoding"
    assert said.headers["content-length"] == str(len(said.body))
    found = gzip.decompress(said.body) if encoding == "gzip" else said.body
    assert found == (b"{}" if content_type == JSON else b"")
    bad = ask(relay, document(None), JSON, HTTP_ACCEPT_ENCODING=accepted)
    assert bad.error == NO_EVENT


# Where this server reads HTTP otherwise than the forwarder's, which has a path of its own besides.
GONE = ([499], ["canceled"])
BAD: tuple[list[int], list[str]] = ([400], [])
OTHERWISE = {
    f"target {PATH}": INVALID,
    # A path is the call's to the byte.
    **dict.fromkeys(("target /{path}", "target //{path}"), ([404], [])),
    # The first counts.
    "two types": INVALID,
    # Any token is a method.
    "lower-case method": ([404], []),
    # The answer of the runtime when the rest of a body does not come, and when it is none.
    **dict.fromkeys(("128 KiB", "chunk size", "negative chunk size", "chunk is longer"), GONE),
    "128 KiB chunk": LARGE,
    **dict.fromkeys(("10**99", "5000 digits", "gzip, chunked", "no URL"), BAD),
}
NAMES, REQUESTS = table(test_requests.test_request)
# It speaks HTTP/2, and then does not close.
ON_HTTP1 = [case for case in REQUESTS if case.id != "HTTP/2"]


@pytest.mark.parametrize(NAMES, ON_HTTP1)
def test_request(
    request: pytest.FixtureRequest,
    relay: Relay,
    standin: Standin,
    sent: bytes,
    expected: tuple[list[int], list[str]],
) -> None:
    """A request is read as HTTP has it, or refused."""
    title = request.node.callspec.id
    statuses, codes = expected
    # That Collector refuses everything, and this one nothing.
    taken = [200 if status == 503 else status for status in statuses]
    expected = OTHERWISE.get(title, (taken, [code for code in codes if code != "unavailable"]))
    before = len(standin.requests)
    assert outcome(exchange(relay, sent)) == expected
    assert len(delivered(standin, before)) == expected[0].count(200)


@pytest.mark.parametrize("value", [b"\xff", MARKER.encode() + b"\xe9", "\N{SNOWMAN}".encode()])
@pytest.mark.parametrize("name", [b"X", b"Content-Type", b"Connect-Timeout-Ms", b"Host"])
def test_header_bytes(relay: Relay, name: bytes, value: bytes) -> None:
    """A header of bytes that HTTP permits and ASCII has not is answered without a traceback."""
    line = b"%b: %b" % (name, value)
    answered = exchange(relay, request("X-Y: z").replace(b"X-Y: z", line))
    assert re.match(rb"HTTP/1\.1 (200|400|415) ", answered), answered


@pytest.mark.parametrize("path", [b"/\xff", b"/%ff", b"/%", b"/%00", b"{path}?\xff", b"{path}?%ff"])
def test_path_bytes(relay: Relay, path: bytes) -> None:
    """So is a path of any bytes."""
    answered = exchange(relay, request(target="{x}").replace(b"{x}", path))
    assert re.match(rb"HTTP/1\.1 (200|400|404) ", answered), answered


def test_keep_alive(relay: Relay, standin: Standin) -> None:
    """A connection is kept for the next call, whatever the answer was."""
    before = len(standin.requests)
    connection = http.client.HTTPConnection(relay.host, relay.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for method, path, body, status in (
            *(("POST", PATH, REPORT, 200), ("POST", PATH, b"x", 400), ("HEAD", PATH, b"", 405)),
            *(
                ("OPTIONS", PATH, b"", 405),
                ("POST", "/", REPORT, 404),
                ("GET", "/healthz", b"", 200),
            ),
            ("POST", PATH, REPORT, 200),
        ):
            connection.request(method, path, body, {"Content-Type": PROTO})
            answer = connection.getresponse()
            answer.read()
            assert (method, path, answer.status) == (method, path, status)
        assert connection.sock is first
    assert len(delivered(standin, before)) == 2


def test_pipelining(relay: Relay, standin: Standin) -> None:
    """Requests in one segment are answered in their order."""
    before = len(standin.requests)
    sessions = [new() for _ in range(8)]
    calls = [request(body=message(start(WHOLE), session=session)) for session in sessions]
    calls.insert(3, request(body=b"x"))
    calls.insert(5, request(CHUNKED, body=chunked(REPORT[:9], REPORT[9:])))
    kept = [sent.replace(b"Connection: close\r\n", b"") for sent in calls[:-1]]
    assert outcome(exchange(relay, b"".join([*kept, calls[-1]]))) == (
        [*[200] * 3, 400, *[200] * 6],
        ["invalid_argument"],
    )
    expected = [*sessions[:4], ID, *sessions[4:]]
    assert [session for session, _ in delivered(standin, before)] == expected


# The same as the core


PLAIN = st.binary() | MESSAGES | DOCUMENTS
BODIES = st.one_of(
    *(PLAIN, PLAIN.map(gzip.compress)),
    st.builds(lambda body, cut: body[: -cut or None], PLAIN, st.integers(0, 80)),
    st.integers(0, 2**17).map(lambda size: gzip.compress(bytes(size))),
)
TYPES = [
    *(PROTO, JSON, PROTO, JSON, f"{JSON}; charset=utf-8", "Application/PROTO"),
    *("application/grpc-web", "application/connect+proto", ""),
]
# All that an answer may say: none of it is of the body.
MESSAGE = re.compile(
    "|".join(
        (
            *map(re.escape, ("", BAD_ID[2], BAD_BODY[2], NO_EVENT[2], TOO_LARGE[2])),
            r"start\.[a-z_]+: the value is not a whole number from 0 to 2147483647",
            "unknown compression: 'br': supported encodings are gzip",
            "decompress: .*",
        )
    )
)


@examples(300)
@given(BODIES, st.sampled_from(TYPES), st.sampled_from(["", "gzip", "gzip", "identity", "br"]))
def test_as_the_core(
    relay: Relay, standin: Standin, body: bytes, content_type: str, encoding: str
) -> None:
    """Whatever comes, the relay answers as the protocol core does, and what leaves is the same."""
    before = len(standin.requests)
    said = ask(relay, body, content_type, HTTP_CONTENT_ENCODING=encoding, HTTP_USER_AGENT=MARKER)
    reply = call(body, content_type, HTTP_CONTENT_ENCODING=encoding)
    assert said.error == (reply.status, reply.code, reply.message)
    assert MESSAGE.fullmatch(reply.message)
    assert MARKER not in repr(said)
    reports = [(report.session_id, report.attributes) for report in reply.reports]
    assert delivered(standin, before) == reports


# The fuzzer

SECONDS = 180 if LONG else 10
CONNECTIONS = 48
MOST_GROWTH = 24 * 2**20


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def text(value: bytes) -> bytes:
    """A text of HPACK, as it is."""
    size = len(value)
    return (bytes([size]) if size < 127 else b"\x7f" + varint(size - 127)) + value


def headers(*more: tuple[str, str]) -> bytes:
    """The headers of a call, as HPACK has them when it keeps none of them."""
    pairs = [
        *((":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", PATH)),
        *(("content-type", PROTO), *more),
    ]
    return b"".join(b"\0" + text(name.encode()) + text(value.encode()) for name, value in pairs)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BODY = message(start(WHOLE) + field(100, MARKER))
H1 = [
    request(body=BODY),
    request("Content-Encoding: gzip", body=gzip.compress(BODY)),
    request(CHUNKED, body=chunked(BODY[:20], BODY[20:])),
    request(f"X: {MARKER}", "Expect: 100-continue", "Connect-Timeout-Ms: 900", body=BODY),
    request(body=document(CAMEL | {"x": MARKER})).replace(PROTO.encode(), JSON.encode()),
    request(target=f"/{MARKER}", method="GET", body=b""),
    request(target="/healthz", method="GET", body=b""),
    request(target="/readyz", method="HEAD", body=b""),
    request(body=bytes(70 * KIB)),
]
H2 = [
    PREFACE + b"".join(frames)
    for frames in (
        [frame(4), frame(1, 4, 1, headers()), frame(0, 1, 1, BODY)],
        # Settings, a window, and a ping; a body in parts, one of them padded; and the end.
        [
            frame(4, 0, 0, struct.pack(">HIHI", 3, 100, 4, 2**31 - 1)),
            frame(8, 0, 0, (2**20).to_bytes(4)),
            frame(6, 0, 0, b"12345678"),
            frame(1, 4, 1, headers(("x", MARKER))),
            frame(0, 0, 1, BODY[:9]),
            frame(0, 9, 1, b"\5" + BODY[9:] + bytes(5)),
            frame(7, 0, 0, bytes(8) + MARKER.encode()),
        ],
        # Headers in parts, a priority, a reset, an unknown kind, and the next stream.
        [
            frame(4),
            frame(1, 0, 1, headers()[:20]),
            frame(9, 4, 1, headers()[20:]),
            frame(2, 0, 1, bytes(5)),
            frame(3, 0, 1, bytes(4)),
            frame(99, 255, 5, MARKER.encode()),
            frame(1, 5, 3, headers(("content-length", "0"))),
        ],
        [frame(4), *(frame(1, 4, 2 * n + 1, headers()) for n in range(200))],
        [
            frame(4),
            *(
                frame(1, 4, 2 * n + 1, headers()) + frame(3, 0, 2 * n + 1, bytes(4))
                for n in range(200)
            ),
        ],
    )
]


@pytest.mark.parametrize("sent", H1[:5] + H2[:2])
def test_unchanged(relay: Relay, standin: Standin, sent: bytes) -> None:
    """What the fuzzer changes is a call that is taken, as long as it is as it should be."""
    before = len(standin.requests)
    with relay.connect() as connection:
        connection.sendall(sent.replace(b"{path}", PATH.encode()))
        eventually(lambda: bool(standin.requests[before:]))
    assert [session for session, _ in delivered(standin, before)] == [ID]


def flip(data: bytes, chance: random.Random) -> bytes:
    """Change some bits."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    """End early, or leave out a part."""
    first, last = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:last] if chance.random() < 0.5 else data[:first] + data[last:]


def repeat(data: bytes, chance: random.Random) -> bytes:
    """Say a part again, and again."""
    first, last = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    times = chance.choice((1, 2, 50))
    return data[:last] + data[first:last][:2000] * times + data[last:]


def interleave(data: bytes, chance: random.Random) -> bytes:
    """Say something else in between."""
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(H1 + H2) + data[place:]


def lengthen(data: bytes, chance: random.Random) -> bytes:
    """Say another length, of HTTP/1.1 or of a frame."""
    number = chance.choice((0, 1, 2**16, 2**24 - 1, 2**31, 2**32, 2**63, 2**64, 10**99))
    if data.startswith(PREFACE):
        place = chance.randrange(len(PREFACE), len(data) + 1)
        size = (number % 2**24).to_bytes(3)
        return data[:place] + size + data[place + 3 :]
    written = chance.choice((b"%d", b"%x", b"-%d", b"+%d")) % number
    return re.sub(rb"(?<=Length: )\d+|(?<=\n)[0-9a-f]+(?=\r)", written, data)


def flood(data: bytes, chance: random.Random) -> bytes:
    """Say far more headers, or frames."""
    times = chance.choice((10, 100, 1000, 10_000))
    if data.startswith(PREFACE):
        kind = chance.choice(
            (frame(4), frame(6, 0, 0, bytes(8)), frame(9, 0, 1, b"\0"), frame(0, 0, 1))
        )
        return data + kind * times
    return data.replace(b"\r\n", b"\r\n" + f"X-{MARKER}: {MARKER}\r\n".encode() * times, 1)


MUTATIONS = [flip, cut, repeat, interleave, lengthen, flood]


def mutated(chance: random.Random) -> bytes:
    """What one client sends."""
    data = chance.choice(chance.choice((H1, H2))).replace(b"{path}", PATH.encode())
    if chance.random() < 0.5:
        data = data.replace(b"Connection: close\r\n", b"")
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        data = chance.choice(MUTATIONS)(data or b"x", chance)
    return data[: 512 * KIB]


def disturb(relay: Relay, chance: random.Random) -> None:
    """Be some clients at once, each with something else to say and a way to leave."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = socket.create_connection((relay.host, relay.port), PATIENCE)
            stack.enter_context(connection)
            # It ends with a reset: its port would be held for a minute.
            reset = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.settimeout(0.05)
            data, leave = mutated(chance), chance.randrange(4)
            # It may be cut off at any place, or be read no further.
            with contextlib.suppress(OSError):
                half = chance.randrange(len(data) + 1)
                connection.sendall(data[:half])
                connection.sendall(data[half:])
                if leave == 0:
                    connection.close()
                elif leave == 1:
                    connection.shutdown(socket.SHUT_WR)
                elif leave == 2:
                    connection.recv(64 * KIB)


def memory(process: int) -> int:
    """The bytes of memory that a process has."""
    status = Path(f"/proc/{process}/status").read_text()
    (size,) = re.findall(r"VmRSS:\s+([0-9]+) kB", status)
    return int(size) * KIB


def test_fuzz(tmp_path: Path) -> None:
    """Whatever comes on its connections, a relay goes on, says nothing, and does not grow."""
    seed = os.environ.get("FUZZ_SEED") or str(random.randrange(2**32))  # noqa: S311 - no secret
    with Standin(Answer()) as standin, relaying(tmp_path, standin.endpoint) as relay:
        (worker,) = workers = relay.workers()
        descriptors = Path(f"/proc/{worker}/fd")
        assert relay.report() == (200, "")
        few = len([*descriptors.iterdir()])
        begin = time.monotonic()
        warm = 0
        rounds = 0
        while time.monotonic() < begin + SECONDS:
            rounds += 1
            # Printed if it fails.
            print(f"FUZZ_SEED={seed}, round {rounds}")
            disturb(relay, random.Random(f"{seed} {rounds}"))  # noqa: S311 - no secret
            before, session = len(standin.requests), new()
            assert relay.get("/healthz") == (200, "ok")
            assert relay.report(session) == (200, "")
            assert session in [found for found, _ in delivered(standin, before)]
            assert relay.workers() == workers
            said = relay.said()
            assert "Traceback" not in said, said
            assert MARKER not in said
            if not warm and time.monotonic() > begin + SECONDS / 3:
                warm = memory(worker)
        eventually(lambda: len([*descriptors.iterdir()]) <= few + 1)
        grown = memory(worker) - warm
        print(f"rounds {rounds}, memory {warm} and {grown} more")
        assert grown < MOST_GROWTH
