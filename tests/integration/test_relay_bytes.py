"""The relay and the bytes of its connections: HTTP, Connect's rules, and a fuzzer.

``HYPOTHESIS_PROFILE=long`` fuzzes for some minutes. ``FUZZ_SEED`` repeats a run.
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
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.cases import FULL_ATTRIBUTES
from support.core import call_application, parse_responses
from support.fuzzing import LONG_PROFILE, examples
from support.messages import (
    CAMEL_CASE_START,
    CHUNKED_HEADER,
    JSON,
    KIB,
    MARKER,
    PROTO,
    REPORT,
    REPORT_ATTRIBUTES,
    SESSION_ID,
    chunked,
    encode_json_request,
    encode_request,
    encode_start,
    field,
    http_request,
    new_session_id,
)
from support.processes import WAIT_SECONDS, wait_until
from support.relay import Relay, running_relay
from support.relay_clients import open_files, resident_bytes
from support.request_cases import (
    ACCEPTED_CASES,
    BAD_BODY,
    BAD_ID,
    HTTP_CASES,
    INVALID,
    LARGE,
    NO_EVENT,
    NOT_THE_CALL_CASES,
    REFUSED_CASES,
    REFUSED_HEADER_CASES,
    TOO_LARGE,
)
from support.standins import HTTPStandin, Response
from support.strategies import DOCUMENTS, MESSAGES
from tbot_otel.connect import PATH


@pytest.fixture(scope="module")
def standin() -> Iterator[HTTPStandin]:
    """A Collector that accepts everything."""
    with HTTPStandin(Response()) as collector:
        yield collector


@pytest.fixture(scope="module")
def relay(standin: HTTPStandin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay for all tests, which exports to that Collector."""
    with running_relay(tmp_path_factory.mktemp("relay"), standin.endpoint) as relay:
        yield relay


@pytest.fixture(autouse=True)
def check_output(relay: Relay) -> Iterator[None]:
    """Check that the relay prints no traceback and nothing of a test's requests."""
    before = len(relay.output())
    yield
    # After the response to a later request, its output is complete.
    assert relay.get("/healthz") == (200, "ok")
    output = relay.output()[before:]
    assert "Traceback" not in output, output
    assert MARKER not in output


class HTTPResponse(NamedTuple):
    """A response of the relay."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[int, str, str]:
        """The status, and the code and message of an error of Connect, which is JSON."""
        if self.status == 200 or not self.body:
            return self.status, "", ""
        assert self.headers["content-type"] == JSON
        assert "content-encoding" not in self.headers
        error = json.loads(self.body)
        assert error.keys() == {"code", "message"}
        return self.status, error["code"], error["message"]


def send_request(
    relay: Relay,
    body: bytes = REPORT,
    content_type: str | None = PROTO,
    *,
    method: str = "POST",
    path: str = PATH,
    **headers: str,
) -> HTTPResponse:
    """Send a request on a new connection. Headers have their WSGI names."""
    connection = http.client.HTTPConnection(relay.host, relay.port, timeout=WAIT_SECONDS)
    http_headers = {name.removeprefix("HTTP_").replace("_", "-"): v for name, v in headers.items()}
    if content_type is not None:
        http_headers["Content-Type"] = content_type
    with contextlib.closing(connection):
        # The relay responds to a large request before it has read all of it.
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, path, body, http_headers)
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        return HTTPResponse(response.status, received, response.read())


def send_bytes(relay: Relay, data: bytes) -> bytes:
    """Send bytes, and return what arrives until the relay closes the connection."""
    received = b""
    # It may close before it has read everything.
    with relay.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data.replace(b"{path}", PATH.encode()))
        while part := connection.recv(64 * KIB):
            received += part
    return received


def exported_reports(standin: HTTPStandin, since: int) -> list[tuple[str, dict[str, str | int]]]:
    """The session and the attributes of each report exported since a number of requests."""
    reports = []
    for request in standin.requests[since:]:
        for logs in ExportLogsServiceRequest.FromString(request.body).resource_logs:
            values = {a.key: a.value.string_value for a in logs.resource.attributes}
            record = logs.scope_logs[0].log_records[0]
            attributes = {
                a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in record.attributes
            }
            reports.append((values["session.id"], attributes))
    return reports


@pytest.mark.parametrize(("body", "content_type", "headers"), ACCEPTED_CASES)
def test_accepted_report(
    relay: Relay, standin: HTTPStandin, body: bytes, content_type: str, headers: dict[str, str]
) -> None:
    """The relay accepts the reports that the core accepts, and responds in the same codec."""
    before = len(standin.requests)
    response = send_request(relay, body, content_type, **headers)
    if headers.get("HTTP_CONNECT_TIMEOUT_MS") == "0":
        # The runtime of the forwarder leaves the timeout to its server.
        assert response.error == (504, "deadline_exceeded", "the call timed out")
        # A later report leaves no export of this one for the next test.
        assert relay.report() == (200, "")
        return
    as_json = content_type.startswith(JSON)
    empty_message = b"{}" if as_json else b""
    encoding = "gzip" if "gzip" in headers.get("HTTP_ACCEPT_ENCODING", "") else "identity"
    assert response.status == 200
    assert response.headers["content-type"] == (JSON if as_json else PROTO)
    assert response.headers["content-encoding"] == encoding
    assert (
        gzip.decompress(response.body) if encoding == "gzip" else response.body
    ) == empty_message
    assert exported_reports(standin, before) == [(SESSION_ID, REPORT_ATTRIBUTES)]


@pytest.mark.parametrize(("body", "content_type", "headers", "expected"), REFUSED_CASES)
def test_refused_report(
    relay: Relay,
    body: bytes,
    content_type: str,
    headers: dict[str, str],
    expected: tuple[int, str, str],
) -> None:
    """The relay refuses the reports that the core refuses, with the same error."""
    assert send_request(relay, body, content_type, **headers).error == expected


@pytest.mark.parametrize(("body", "headers", "status", "code"), REFUSED_HEADER_CASES)
def test_refused_header(
    relay: Relay, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """An invalid header of Connect causes an error that names it."""
    actual_status, actual_code, message = send_request(relay, body, **headers).error
    assert (actual_status, actual_code) == (status, code)
    assert message


@pytest.mark.parametrize(("arguments", "status"), NOT_THE_CALL_CASES)
def test_other_request(
    relay: Relay, standin: HTTPStandin, arguments: dict[str, str], status: int
) -> None:
    """A request that is not tbot's call gets only a status, and a header with what is allowed."""
    arguments = {"path": PATH, **arguments}
    query = arguments.pop("QUERY_STRING", "")
    arguments["path"] = (arguments["path"] or "/") + (query and f"?{query}")
    before = len(standin.requests)
    response = send_request(relay, **arguments)  # type: ignore[arg-type]  # there is no body among them
    assert (response.status, response.body) == (status, b"")
    assert response.headers.get("allow") == ("POST" if status == 405 else None)
    types = f"{JSON}, {PROTO}" if status == 415 else None
    assert response.headers.get("accept-post") == types
    assert not exported_reports(standin, before)


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
        # The runtime accepts the name of a codec alone.
        ({"content_type": "proto"}, (200, "")),
        ({"content_type": None}, (415, "")),
    ],
)
def test_header(relay: Relay, headers: dict[str, str], expected: tuple[int, str]) -> None:
    """Connect's headers are optional, and parsed by the runtime's rules."""
    assert send_request(relay, **headers).error[:2] == expected  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        *((value, "gzip") for value in ("gzip", "br, gzip", "zstd,gzip,identity")),
        *((value, "identity") for value in ("", "identity, gzip", "br", "*", "gzip;q=0", "GZIP")),
    ],
)
@pytest.mark.parametrize("content_type", [PROTO, JSON])
def test_accept_encoding(relay: Relay, accepted: str, encoding: str, content_type: str) -> None:
    """A response has the first known encoding in Accept-Encoding; an error has none."""
    body = encode_json_request(CAMEL_CASE_START) if content_type == JSON else REPORT
    response = send_request(relay, body, content_type, HTTP_ACCEPT_ENCODING=accepted)
    assert (response.status, response.headers["content-encoding"]) == (200, encoding)
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.headers["content-length"] == str(len(response.body))
    body = gzip.decompress(response.body) if encoding == "gzip" else response.body
    assert body == (b"{}" if content_type == JSON else b"")
    error = send_request(relay, encode_json_request(None), JSON, HTTP_ACCEPT_ENCODING=accepted)
    assert error.error == NO_EVENT


# Differences from the forwarder's HTTP server.
BAD_REQUEST: tuple[list[int], list[str]] = ([400], [])
DIFFERENCES = {
    f"target {PATH}": INVALID,
    # The path must match exactly.
    **dict.fromkeys(("target /{path}", "target //{path}"), ([404], [])),
    # The first one counts.
    "two types": INVALID,
    # Any token can be a method.
    "lower-case method": ([404], []),
    # The connection is closed.
    "HTTP/2": ([], []),
    # The server ends a body where it is invalid.
    **dict.fromkeys(("chunk size", "negative chunk size", "chunk is longer"), INVALID),
    **dict.fromkeys(("8 KiB", "8 KiB chunk"), LARGE),
    **dict.fromkeys(("10**99", "gzip, chunked", "no URL"), BAD_REQUEST),
}


# More than the forwarder accepts in its headers.
DIGITS = pytest.param(
    http_request(f"Content-Length: {'9' * 5000}", body=b""), BAD_REQUEST, id="5000 digits"
)


@pytest.mark.parametrize(("data", "expected"), [*HTTP_CASES, DIGITS])
def test_http(
    request: pytest.FixtureRequest,
    relay: Relay,
    standin: HTTPStandin,
    data: bytes,
    expected: tuple[list[int], list[str]],
) -> None:
    """A request is parsed by the rules of HTTP, or refused."""
    title = request.node.callspec.id
    statuses, codes = expected
    # The cases are for a Collector that refuses everything; this one accepts everything.
    accepted = [200 if status == 503 else status for status in statuses]
    expected = DIFFERENCES.get(title, (accepted, [code for code in codes if code != "unavailable"]))
    before = len(standin.requests)
    assert parse_responses(send_bytes(relay, data)) == expected
    assert len(exported_reports(standin, before)) == expected[0].count(200)


@pytest.mark.parametrize("value", [b"\xff", MARKER.encode() + b"\xe9", "\N{SNOWMAN}".encode()])
@pytest.mark.parametrize("name", [b"X", b"Content-Type", b"Connect-Timeout-Ms", b"Host"])
def test_header_bytes(relay: Relay, name: bytes, value: bytes) -> None:
    """A header with bytes that are not ASCII, which HTTP permits, gets a response."""
    line = b"%b: %b" % (name, value)
    response = send_bytes(relay, http_request("X-Y: z").replace(b"X-Y: z", line))
    assert re.match(rb"HTTP/1\.1 (200|400|415) ", response), response


@pytest.mark.parametrize("path", [b"/\xff", b"/%ff", b"/%", b"/%00", b"{path}?\xff", b"{path}?%ff"])
def test_path_bytes(relay: Relay, path: bytes) -> None:
    """A path with any bytes gets a response."""
    response = send_bytes(relay, http_request(target="{x}").replace(b"{x}", path))
    assert re.match(rb"HTTP/1\.1 (200|400|404) ", response), response


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (http_request(body=b"x"), 400),
        (http_request(method="HEAD", body=b""), 405),
        (http_request(method="OPTIONS", body=b""), 405),
        (http_request(target="/"), 404),
        (http_request(method="GET", target="/healthz", body=b""), 200),
        (http_request(method="GET", target="/readyz", body=b""), 200),
    ],
)
def test_keep_alive(relay: Relay, standin: HTTPStandin, last: bytes, status: int) -> None:
    """A connection is kept after acknowledgments, and closed after every other response."""
    before = len(exported_reports(standin, 0))
    call = http_request()
    data = (call * 2 + last + call).replace(b"Connection: close\r\n", b"")
    received = send_bytes(relay, data)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"200", b"%d" % status]
    assert received.lower().count(b"connection: close\r\n") == 1
    assert len(exported_reports(standin, 0)) == before + 2


def test_pipelining(relay: Relay, standin: HTTPStandin) -> None:
    """Responses to pipelined requests come in order."""
    before = len(standin.requests)
    sessions = [new_session_id() for _ in range(8)]
    calls = [
        http_request(body=encode_request(encode_start(FULL_ATTRIBUTES), session_id=session))
        for session in sessions
    ]
    calls.insert(5, http_request(CHUNKED_HEADER, body=chunked(REPORT[:9], REPORT[9:])))
    calls.append(http_request(body=b"x"))
    kept_alive = [call.replace(b"Connection: close\r\n", b"") for call in calls]
    assert parse_responses(send_bytes(relay, b"".join(kept_alive))) == (
        [*[200] * 9, 400],
        ["invalid_argument"],
    )
    expected = [*sessions[:5], SESSION_ID, *sessions[5:]]
    assert [session for session, _ in exported_reports(standin, before)] == expected


# The relay responds as the core does.


UNCOMPRESSED_BODIES = st.binary() | MESSAGES | DOCUMENTS
BODIES = st.one_of(
    *(UNCOMPRESSED_BODIES, UNCOMPRESSED_BODIES.map(gzip.compress)),
    st.builds(lambda body, cut: body[: -cut or None], UNCOMPRESSED_BODIES, st.integers(0, 80)),
    st.integers(0, 2**17).map(lambda size: gzip.compress(bytes(size))),
)
CONTENT_TYPES = [
    *(PROTO, JSON, PROTO, JSON, f"{JSON}; charset=utf-8", "Application/PROTO"),
    *("application/grpc-web", "application/connect+proto", ""),
]
# Every message that an error may have. None contains a part of the body.
ALLOWED_MESSAGES = re.compile(
    "|".join(
        (
            *map(re.escape, ("", BAD_ID[2], BAD_BODY[2], NO_EVENT[2], TOO_LARGE[2])),
            r"start\.[a-z_]+: the value is not a whole number, or is negative",
            "unknown compression: 'other': supported encodings are gzip",
            "decompress: .*",
        )
    )
)


@examples(150)
@given(
    BODIES, st.sampled_from(CONTENT_TYPES), st.sampled_from(["", "gzip", "gzip", "identity", "br"])
)
def test_same_as_core(
    relay: Relay, standin: HTTPStandin, body: bytes, content_type: str, encoding: str
) -> None:
    """For any body, the relay responds and exports as the protocol core does."""
    before = len(standin.requests)
    response = send_request(
        relay, body, content_type, HTTP_CONTENT_ENCODING=encoding, HTTP_USER_AGENT=MARKER
    )
    reply = call_application(body, content_type, HTTP_CONTENT_ENCODING=encoding)
    assert response.error == (reply.status, reply.code, reply.message)
    assert ALLOWED_MESSAGES.fullmatch(reply.message)
    assert MARKER not in repr(response)
    reports = [(report.session_id, report.permitted.attributes) for report in reply.reports]
    assert exported_reports(standin, before) == reports


def test_large_headers(relay: Relay) -> None:
    """Headers over 16 KiB are refused, in the path and in a field."""
    for head in (f"GET /{'x' * 40_000} HTTP/1.1", f"GET / HTTP/1.1\r\nX: {'x' * 40_000}"):
        with relay.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(f"{head}\r\nHost: x\r\n\r\n".encode())
            assert not connection.recv(20).startswith((b"HTTP/1.1 2", b"HTTP/1.1 404"))
    assert relay.report() == (200, "")


# The fuzzer.

CONCURRENT_CONNECTIONS = 48
# By hand: ten million requests, which takes hours.
ROUNDS = 10_000_000 // CONCURRENT_CONNECTIONS if LONG_PROFILE else 12
MAX_GROWTH_BYTES = 24 * 2**20


BODY = encode_request(encode_start(FULL_ATTRIBUTES) + field(100, MARKER))
FUZZED_REQUESTS = [
    http_request(body=BODY),
    http_request("Content-Encoding: gzip", body=gzip.compress(BODY)),
    http_request(CHUNKED_HEADER, body=chunked(BODY[:20], BODY[20:])),
    http_request(f"X: {MARKER}", "Expect: 100-continue", "Connect-Timeout-Ms: 900", body=BODY),
    http_request(body=encode_json_request(CAMEL_CASE_START | {"x": MARKER})).replace(
        PROTO.encode(), JSON.encode()
    ),
    http_request(target=f"/{MARKER}", method="GET", body=b""),
    http_request(target="/healthz", method="GET", body=b""),
    http_request(target="/readyz", method="HEAD", body=b""),
    http_request(body=bytes(5 * KIB)),
]


@pytest.mark.parametrize("data", FUZZED_REQUESTS[:5])
def test_fuzzed_requests_are_valid(relay: Relay, standin: HTTPStandin, data: bytes) -> None:
    """The requests that the fuzzer changes are accepted as they are."""
    before = len(standin.requests)
    with relay.connect() as connection:
        connection.sendall(data.replace(b"{path}", PATH.encode()))
        wait_until(lambda: bool(standin.requests[before:]))
    assert [session for session, _ in exported_reports(standin, before)] == [SESSION_ID]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip some bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_part(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off, or a part out."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:last] if rng.random() < 0.5 else data[:first] + data[last:]


def repeat_part(data: bytes, rng: random.Random) -> bytes:
    """Repeat a part."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    times = rng.choice((1, 2, 50))
    return data[:last] + data[first:last][:2000] * times + data[last:]


def insert_request(data: bytes, rng: random.Random) -> bytes:
    """Insert another request."""
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(FUZZED_REQUESTS) + data[place:]


def change_length(data: bytes, rng: random.Random) -> bytes:
    """Change a length."""
    number = rng.choice((0, 1, 2**16, 2**24 - 1, 2**31, 2**32, 2**63, 2**64, 10**99))
    written = rng.choice((b"%d", b"%x", b"-%d", b"+%d")) % number
    return re.sub(rb"(?<=Length: )\d+|(?<=\n)[0-9a-f]+(?=\r)", written, data)


def add_many(data: bytes, rng: random.Random) -> bytes:
    """Add many headers."""
    times = rng.choice((10, 100, 1000, 10_000))
    return data.replace(b"\r\n", b"\r\n" + f"X-{MARKER}: {MARKER}\r\n".encode() * times, 1)


MUTATIONS = [flip_bits, cut_part, repeat_part, insert_request, change_length, add_many]


def mutated_request(rng: random.Random) -> bytes:
    """The bytes that one client sends."""
    data = rng.choice(FUZZED_REQUESTS).replace(b"{path}", PATH.encode())
    if rng.random() < 0.5:
        data = data.replace(b"Connection: close\r\n", b"")
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(data or b"x", rng)
    return data[: 512 * KIB]


def run_fuzzing_clients(relay: Relay, rng: random.Random) -> None:
    """Run some clients, each with other bytes and another way to disconnect."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONCURRENT_CONNECTIONS):
            connection = socket.create_connection((relay.host, relay.port), WAIT_SECONDS)
            stack.enter_context(connection)
            # Close with a reset, because the port would stay in TIME_WAIT for a minute.
            reset = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.settimeout(0.05)
            data, disconnect = mutated_request(rng), rng.randrange(4)
            # The relay may close the connection or stop reading at any point.
            with contextlib.suppress(OSError):
                half = rng.randrange(len(data) + 1)
                connection.sendall(data[:half])
                connection.sendall(data[half:])
                if disconnect == 0:
                    connection.close()
                elif disconnect == 1:
                    connection.shutdown(socket.SHUT_WR)
                elif disconnect == 2:
                    connection.recv(64 * KIB)


def test_fuzz(relay: Relay, standin: HTTPStandin) -> None:
    """Under fuzzing, a relay keeps working, prints nothing, and does not grow."""
    seed = os.environ.get("FUZZ_SEED") or str(random.randrange(2**32))  # noqa: S311 - not a secret
    (worker,) = workers = relay.worker_pids()
    assert relay.report() == (200, "")
    files = open_files(worker)
    warm_bytes = 0
    for rounds in range(1, ROUNDS + 1):
        # pytest prints it if the test fails.
        print(f"FUZZ_SEED={seed}, round {rounds}")
        run_fuzzing_clients(relay, random.Random(f"{seed} {rounds}"))  # noqa: S311 - not a secret
        before, session = len(standin.requests), new_session_id()
        assert relay.get("/healthz") == (200, "ok")
        assert relay.report(session) == (200, "")
        assert session in [exported for exported, _ in exported_reports(standin, before)]
        assert relay.worker_pids() == workers
        output = relay.output()
        assert "Traceback" not in output, output
        assert MARKER not in output
        if rounds == min(ROUNDS // 3, 1000):
            warm_bytes = resident_bytes(worker)
    wait_until(lambda: not open_files(worker) - files)
    growth = resident_bytes(worker) - warm_bytes
    print(f"rounds {rounds}, memory {warm_bytes}, growth {growth}")
    assert growth < MAX_GROWTH_BYTES
