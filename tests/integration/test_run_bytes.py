"""The forwarder of ``tbot-otel run``, and the bytes of its connections."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cases import FULL_ATTRIBUTES
from support.collectors import Collector
from support.core import parse_responses
from support.forwarder import Address, exchange, running_forwarder
from support.messages import (
    CHUNKED_HEADER,
    JSON,
    KIB,
    PROTO,
    REPORT,
    TLS_HELLO,
    chunked,
    encode_request,
    encode_start,
    http_request,
    new_session_id,
)
from support.processes import WAIT_SECONDS
from support.request_cases import HTTP_CASES, INVALID, READ
from support.setup_code import override_constants
from support.standins import HTTPStandin, Response


@pytest.fixture(scope="module")
def rejecting() -> Iterator[HTTPStandin]:
    """A Collector that rejects every export: each valid report gets ``unavailable``."""
    with HTTPStandin(Response(400)) as standin:
        yield standin


@pytest.fixture(scope="module")
def address(rejecting: HTTPStandin) -> Iterator[Address]:
    """The address of a forwarder that keeps running, because it delivers no report."""
    with running_forwarder(rejecting.endpoint) as address:
        yield address


@pytest.mark.parametrize(("sent", "expected"), HTTP_CASES)
def test_request(
    sent: bytes, expected: tuple[list[int], list[str]], address: Address, rejecting: HTTPStandin
) -> None:
    """A request is parsed as HTTP defines it, or gets an error, and the connection is closed."""
    before = len(rejecting.requests)
    assert parse_responses(exchange(address, sent)) == expected
    assert len(rejecting.requests) - before == expected[0].count(503)


@pytest.mark.parametrize("start", [b"POST /", b"POST / HTTP/1.1\r\nX: "])
def test_large_headers(start: bytes, address: Address) -> None:
    """4 KiB of headers are refused, in the path and in a field."""
    # No more than the server reads: the reset would discard the response.
    assert parse_responses(exchange(address, start.ljust(4 * KIB, b"x"))) == ([431], [])


def test_percent_encoded(address: Address) -> None:
    """A percent-encoded path is equal to the plain one."""
    encoded = "".join(f"%{ord(character):02x}" for character in address.path[1:])
    assert parse_responses(exchange(address, http_request(target=f"/{encoded}"))) == READ


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (http_request(), READ),
        (http_request(CHUNKED_HEADER, body=chunked(REPORT)), READ),
        # Incomplete requests.
        (http_request()[:-1], ([], [])),
        (http_request(CHUNKED_HEADER, body=chunked(REPORT)[:-2]), ([], [])),
        (b"POST / HTTP/1.1\r\n", ([], [])),
        (TLS_HELLO, ([], [])),
        (b"", ([], [])),
    ],
)
def test_half_closed(sent: bytes, expected: tuple[list[int], list[str]], address: Address) -> None:
    """A client that closes its side gets a response only if its request is complete."""
    assert parse_responses(exchange(address, sent, half_closed=True)) == expected


def test_byte_by_byte(address: Address) -> None:
    """A request may arrive byte by byte."""
    with address.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in http_request().replace(b"{path}", address.path.encode()):
            connection.sendall(bytes([byte]))
        assert connection.recv(64 * KIB).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (http_request(), ([503, 503], ["unavailable", "unavailable"])),
        (
            http_request(CHUNKED_HEADER, body=chunked(REPORT)),
            ([503, 503], ["unavailable", "unavailable"]),
        ),
        (http_request(body=b"x"), ([400, 503], ["invalid_argument", "unavailable"])),
        (
            http_request(body=bytes(4 * KIB + 1)),
            ([429, 503], ["resource_exhausted", "unavailable"]),
        ),
        # An HTTP error closes the connection.
        (http_request(target="/"), ([404], [])),
    ],
)
def test_pipelining(first: bytes, expected: tuple[list[int], list[str]], address: Address) -> None:
    """Requests in one segment get their responses in order."""
    first = first.replace(b"Connection: close\r\n", b"")
    assert parse_responses(exchange(address, first + http_request())) == expected


def test_keep_alive(address: Address) -> None:
    """A connection stays open for the next request."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=WAIT_SECONDS)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("POST", address.path, REPORT, {"Content-Type": PROTO})
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())["code"]) == (503, "unavailable")
        assert connection.sock is first


def test_incomplete_requests_time_out(rejecting: HTTPStandin) -> None:
    """A connection without a complete request is closed without a response."""
    setup = override_constants("tbot_otel.connect", RESPONSE_TIMEOUT_SECONDS=2)
    with running_forwarder(rejecting.endpoint, setup) as address, contextlib.ExitStack() as stack:
        incomplete = (b"", TLS_HELLO, http_request()[:-1])
        connections = [stack.enter_context(address.connect()) for _ in incomplete]
        for connection, sent in zip(connections, incomplete, strict=True):
            connection.sendall(sent)
        for connection in connections:
            assert connection.recv(1) == b""


def test_nested_json(rejecting: HTTPStandin) -> None:
    """Deeply nested JSON is refused, and the forwarder survives it."""
    depth = 2_000
    with running_forwarder(rejecting.endpoint) as address:
        for body in (
            b"[" * depth,
            b"[" * depth + b"]" * depth,
            b'{"distinctId": ' + b"[" * depth,
            b'{"x": ' + b"[" * depth + b"]" * depth + b"}",
            b'{"start": ' * (depth // 5),
        ):
            sent = http_request(body=body).replace(PROTO.encode(), JSON.encode())
            assert parse_responses(exchange(address, sent)) == INVALID
        assert parse_responses(exchange(address, http_request())) == READ


def test_many_connections(address: Address) -> None:
    """Connections without a complete request do not delay a report."""
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(address.connect()) for _ in range(120)]
        incomplete = (TLS_HELLO, http_request()[:-1], http_request()[:50])
        for other, sent in zip(others, incomplete, strict=False):
            other.sendall(sent)
        assert parse_responses(exchange(address, http_request())) == READ
        for other in others:
            other.setblocking(False)
            # All are still open, so the forwarder had them all at that time.
            with pytest.raises(BlockingIOError):
                other.recv(1)


def test_most_connections(rejecting: HTTPStandin) -> None:
    """Of more than 128 connections without a complete request, the oldest are closed."""
    setup = override_constants("tbot_otel.connect", RESPONSE_TIMEOUT_SECONDS=600)
    with running_forwarder(rejecting.endpoint, setup) as address, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(address.connect()) for _ in range(140)]
        for connection in connections[:12]:
            assert connection.recv(1) == b""
        for connection in connections[12:]:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)


def test_listens_on_loopback_alone(address: Address) -> None:
    """Only this machine can connect to the forwarder."""
    sockets = [
        line.split()[1]
        for version in ("tcp", "tcp6")
        for line in Path(f"/proc/{address.forwarder_pid}/net/{version}").read_text().splitlines()
    ]
    assert f"0100007F:{address.port:04X}" in sockets
    assert {f"00000000:{address.port:04X}", f"{'0' * 32}:{address.port:04X}"}.isdisjoint(sockets)


def test_delivered(collector: Collector) -> None:
    """Each of two reports of one start in one segment is acknowledged, and the start arrives."""
    session_id = new_session_id()
    report = http_request(body=encode_request(encode_start(FULL_ATTRIBUTES), session_id=session_id))
    first = report.replace(b"Connection: close\r\n", b"")
    with running_forwarder(collector.endpoint("http/protobuf")) as address:
        assert parse_responses(exchange(address, first + report)) == ([200, 200], [])
        collector.find(session_id)
