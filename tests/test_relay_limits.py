"""The limits of the relay: late, slow, silent and too many clients delay no other call."""

import contextlib
import time
from functools import partial
from pathlib import Path

import pytest

from support import agent
from support.cases import FULL_ATTRIBUTES
from support.messages import PROTO, encode_request, encode_start, field, new_session_id
from support.processes import wait_until
from support.relay import running_relay
from support.relay_clients import (
    GATED_ENVIRON,
    TOO_MANY_CALLS,
    GatedStandin,
    concurrently,
    gated_setup,
    is_full,
    open_files,
)
from support.setup_code import override_constants
from support.standins import HTTPStandin, Response, silent_port
from tbot_otel.connect import MAX_REQUEST_BYTES, PATH, RESPONSE_TIMEOUT_SECONDS
from tbot_otel.relay import app, server

HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTO}\r\n"
DEADLINE_EXCEEDED = (504, "deadline_exceeded")


def test_response_timeout_is_in_time() -> None:
    """A response is sent before tbot gives up, and before a stopping relay must exit."""
    latest = RESPONSE_TIMEOUT_SECONDS + app._SWEEP_INTERVAL_SECONDS
    assert latest < agent.REPORT_TIMEOUT_SECONDS - 1
    assert latest < server.SHUTDOWN_TIMEOUT_SECONDS - 1
    assert app.BODY_TIMEOUT_SECONDS + latest < server.SHUTDOWN_TIMEOUT_SECONDS


@pytest.mark.integration
def test_silent_collector(tmp_path: Path) -> None:
    """A silent Collector delays neither a response beyond its timeout nor the relay's exit."""
    setup = override_constants("tbot_otel.relay.app", RESPONSE_TIMEOUT_SECONDS=4)
    environ = {"OTEL_EXPORTER_OTLP_TIMEOUT": "6"}
    with (
        silent_port() as port,
        running_relay(tmp_path, f"http://127.0.0.1:{port}", setup=setup, **environ) as relay,
        relay.connect() as incomplete,
    ):
        incomplete.sendall(f"{HEAD}Content-Length: 9\r\n\r\nx".encode())
        begin = time.monotonic()
        with concurrently(
            relay.report, relay.report, partial(relay.report, Connect_Timeout_Ms="500")
        ) as results:
            *waiting, impatient = results
            assert impatient.result() == DEADLINE_EXCEEDED
            assert not any(result.done() for result in waiting)
            assert relay.stop() == 0
        assert [result.result() for result in waiting] == [(503, "unavailable")] * 2
        assert time.monotonic() - begin >= 4


@pytest.mark.integration
@pytest.mark.parametrize("sent_bytes", [None, -3, 20], ids=["whole", "most", "start"])
def test_disconnecting_clients(tmp_path: Path, sent_bytes: int | None) -> None:
    """Clients that disconnect during a call do not disturb others, and free their places."""
    body = encode_request(encode_start(FULL_ATTRIBUTES), session_id=new_session_id())
    request = f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    setup = override_constants("tbot_otel.relay.app", MAX_CONCURRENT_CALLS=8)
    with (
        HTTPStandin(Response(delay=0.5)) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
    ):
        connections = [relay.connect() for _ in range(6)]
        for connection in connections:
            connection.sendall(request[:sent_bytes])
        with concurrently(relay.report, relay.report) as results:
            for connection in connections:
                connection.close()
        assert [result.result() for result in results] == [(200, "")] * 2

        def all_places_are_free() -> bool:
            with concurrently(*[relay.report] * 8) as results:
                pass
            return {result.result() for result in results} == {(200, "")}

        wait_until(all_places_are_free)


@pytest.mark.integration
def test_max_concurrent_calls(tmp_path: Path) -> None:
    """Calls over the limit are refused at once, while the others wait for the Collector."""
    setup = gated_setup(max_concurrent_calls=4)
    with (
        GatedStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup, **GATED_ENVIRON) as relay,
        concurrently(relay.report) as first_results,
    ):
        wait_until(lambda: standin.requests)
        with concurrently(*[relay.report] * 12) as results:
            wait_until(lambda: sum(result.done() for result in results) == 9)
            assert {result.result() for result in results if result.done()} == {TOO_MANY_CALLS}
            assert len(standin.requests) == 1
            standin.gate.set()
        assert [result.result() for result in [*first_results, *results]].count((200, "")) == 4
        assert [relay.report() for _ in range(5)] == [(200, "")] * 5


@pytest.mark.integration
def test_abandoned_reports_count(tmp_path: Path) -> None:
    """The reports of calls that timed out count toward the limit until they leave the queue."""
    setup = gated_setup(max_concurrent_calls=4) + override_constants(
        "tbot_otel.relay.app", _SWEEP_INTERVAL_SECONDS=60
    )
    with (
        GatedStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup, **GATED_ENVIRON) as relay,
    ):
        with concurrently(relay.report) as first_results:
            wait_until(lambda: standin.requests)
            results = [relay.report(Connect_Timeout_Ms="300") for _ in range(8)]
            assert results == [DEADLINE_EXCEEDED] * 4 + [TOO_MANY_CALLS] * 4
            standin.gate.set()
        assert first_results[0].result() == (200, "")
        assert [relay.report() for _ in range(5)] == [(200, "")] * 5


# A body without a length counts as the largest one.
BODY_HEADERS = [
    ("Content-Length: 4000", 4_000),
    ("Transfer-Encoding: chunked", MAX_REQUEST_BYTES),
]


@pytest.mark.integration
@pytest.mark.parametrize(("header", "body_bytes"), BODY_HEADERS)
def test_max_unread_bytes(tmp_path: Path, header: str, body_bytes: int) -> None:
    """Calls whose bodies do not arrive count toward the limit of unread bytes until they expire."""
    setup = override_constants(
        "tbot_otel.relay.app", MAX_UNREAD_BYTES=3 * body_bytes, BODY_TIMEOUT_SECONDS=3
    )
    head = f"{HEAD}{header}\r\nExpect: 100-continue\r\n\r\n".encode()
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(3):
            connection = stack.enter_context(relay.connect())
            connection.sendall(head)
            # The relay waits for the body.
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        assert relay.report() == TOO_MANY_CALLS
        wait_until(lambda: relay.report() == (200, ""))


@pytest.mark.integration
def test_read_bodies_are_not_unread(tmp_path: Path) -> None:
    """A body that has arrived does not count toward the limit of unread bytes."""
    setup = gated_setup(max_concurrent_calls=6) + override_constants(
        "tbot_otel.relay.app", MAX_UNREAD_BYTES=12_000
    )
    large = encode_request(
        encode_start(FULL_ATTRIBUTES), session_id=new_session_id(), more=field(100, "x" * 3_000)
    )
    with (
        GatedStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup, **GATED_ENVIRON) as relay,
    ):

        def post_until_admitted() -> tuple[int, str]:
            while (result := relay.post(large)[:2]) == TOO_MANY_CALLS:
                pass
            return result

        with concurrently(*[post_until_admitted] * 6) as results:
            wait_until(lambda: is_full(relay))
            standin.gate.set()
        assert [result.result() for result in results] == [(200, "")] * 6


@pytest.mark.integration
def test_slow_clients(tmp_path: Path) -> None:
    """Slow headers and bodies are cut off, and they and idle connections delay no other call."""
    setup = override_constants(
        "tbot_otel.relay.server", _HEADER_TIMEOUT_MILLIS=2000
    ) + override_constants("tbot_otel.relay.app", BODY_TIMEOUT_SECONDS=2)
    incomplete = {
        "headers": HEAD,
        "body": f"{HEAD}Content-Length: 50\r\n\r\nx",
        "no body": f"{HEAD}Content-Length: 50\r\n\r\n",
        "chunks": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    }
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(300):
            stack.enter_context(relay.connect())
        connections = {stack.enter_context(relay.connect()): name for name in [*incomplete] * 5}
        for connection, name in connections.items():
            connection.sendall(incomplete[name].encode())
        assert relay.report() == (200, "")
        for connection, name in connections.items():
            with contextlib.suppress(ConnectionError):
                # The connection ends, perhaps after an error.
                assert not connection.recv(1000).startswith(b"HTTP/1.1 2"), name
        assert relay.report() == (200, "")


@pytest.mark.integration
@pytest.mark.parametrize("sent", [b"", b"P"], ids=["nothing", "one byte"])
def test_idle_clients(tmp_path: Path, sent: bytes) -> None:
    """Idle connections at the limit are closed, so that others are accepted."""
    max_connections = 50
    setup = override_constants(
        "tbot_otel.relay.server", MAX_CONNECTIONS=max_connections, _HEADER_TIMEOUT_MILLIS=3000
    )
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
        contextlib.ExitStack() as stack,
    ):
        (worker,) = relay.worker_pids()
        assert relay.report() == (200, "")
        # The connection of that report may still be among these. No later one has its name.
        before = open_files(worker)
        idle = [stack.enter_context(relay.connect()) for _ in range(max_connections + 10)]
        for connection in idle:
            connection.sendall(sent)
        wait_until(lambda: len(open_files(worker).keys() - before.keys()) >= max_connections)
        assert relay.report() == (200, "")
        for connection in idle:
            with contextlib.suppress(ConnectionError):
                assert not connection.recv(1000).startswith(b"HTTP/1.1 2")
        # No descriptor leaks.
        wait_until(lambda: not open_files(worker) - before)


@pytest.mark.integration
def test_large_headers(tmp_path: Path) -> None:
    """Headers over 16 KiB are refused, in the path and in a field."""
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint) as relay,
    ):
        for head in (f"GET /{'x' * 40_000} HTTP/1.1", f"GET / HTTP/1.1\r\nX: {'x' * 40_000}"):
            with relay.connect() as connection, contextlib.suppress(ConnectionError):
                connection.sendall(f"{head}\r\nHost: x\r\n\r\n".encode())
                assert not connection.recv(20).startswith((b"HTTP/1.1 2", b"HTTP/1.1 404"))
        assert relay.report() == (200, "")
