"""The limits of the relay: late, slow, silent and too many clients delay no other call."""

import contextlib
import selectors
import socket
import time
from functools import partial
from pathlib import Path

from support.cases import FULL_ATTRIBUTES
from support.messages import PROTO, encode_request, encode_start, new_session_id
from support.processes import wait_until
from support.relay import running_relay
from support.relay_clients import (
    GATED_ENVIRON,
    TOO_MANY_CALLS,
    GatedStandin,
    concurrently,
    gated_setup,
    open_files,
)
from support.setup_code import override_constants
from support.standins import HTTPStandin, Response, silent_port
from tbot_otel.connect import PATH

HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTO}\r\n"
DEADLINE_EXCEEDED = (504, "deadline_exceeded")


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


def test_disconnecting_clients(tmp_path: Path) -> None:
    """Clients that disconnect during a call do not disturb others, and free their places."""
    body = encode_request(encode_start(FULL_ATTRIBUTES), session_id=new_session_id())
    request = f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    setup = override_constants("tbot_otel.relay.app", MAX_CONCURRENT_CALLS=8)
    with (
        HTTPStandin(Response(delay=0.5)) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
    ):

        def all_places_are_free() -> bool:
            with concurrently(*[relay.report] * 8) as results:
                pass
            return {result.result() for result in results} == {(200, "")}

        # The whole request, most of it, and its start.
        for sent_bytes in (None, -3, 20):
            connections = [relay.connect() for _ in range(6)]
            for connection in connections:
                connection.sendall(request[:sent_bytes])
            with concurrently(relay.report, relay.report) as results:
                for connection in connections:
                    connection.close()
            assert [result.result() for result in results] == [(200, "")] * 2
            wait_until(all_places_are_free)


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


UNREAD_HEADERS = ["Content-Length: 100", "Transfer-Encoding: chunked"]


def test_bodies_that_never_come(tmp_path: Path) -> None:
    """However many clients send no body, honest reports are acknowledged at once."""
    setup = override_constants(
        "tbot_otel.relay.bodies", MAX_UNREAD_CALLS=20, BODY_TIMEOUT_SECONDS=60
    )
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
    ):
        for header in UNREAD_HEADERS:
            with contextlib.ExitStack() as stack:
                connections = [stack.enter_context(relay.connect()) for _ in range(600)]
                for connection in connections:
                    connection.sendall(f"{HEAD}{header}\r\n\r\n".encode())
                assert [relay.report() for _ in range(50)] == [(200, "")] * 50
                # All but 20 at most are refused, and their connections closed.
                wait_until(lambda: len(readable(connections)) >= len(connections) - 20)  # noqa: B023 - called now
                for connection in readable(connections):
                    assert read_until_closed(connection).startswith(b"HTTP/1.1 429 ")
                assert [relay.report() for _ in range(10)] == [(200, "")] * 10


def test_pings_without_calls(tmp_path: Path) -> None:
    """Connections that only send HTTP/2's PING are closed, also at the limit of connections."""
    setup = override_constants("tbot_otel.relay.server", MAX_CONNECTIONS=20)
    ping = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
        contextlib.ExitStack() as stack,
    ):
        connections = [stack.enter_context(relay.connect()) for _ in range(30)]
        for connection in connections:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + ping)
        assert [relay.report() for _ in range(20)] == [(200, "")] * 20
        for connection in connections:
            assert not read_until_closed(connection).startswith(b"HTTP/1.1 2")


def readable(connections: list[socket.socket]) -> list[socket.socket]:
    """The connections on which something has arrived, or which are closed."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(0)]  # type: ignore[misc]


def read_until_closed(connection: socket.socket) -> bytes:
    """Return what a connection receives until the relay closes it."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1000):
            received += part
    return received


def test_slow_collector(tmp_path: Path) -> None:
    """While exports take longer than a call may, further calls are refused at once."""
    setup = override_constants("tbot_otel.relay.app", RESPONSE_TIMEOUT_SECONDS=1)
    with (
        HTTPStandin(Response(delay=1.5), Response(delay=30)) as standin,
        running_relay(
            tmp_path, standin.endpoint, setup=setup, OTEL_EXPORTER_OTLP_TIMEOUT="5"
        ) as relay,
    ):
        assert relay.report() == (503, "unavailable")
        with concurrently(relay.report) as results:
            wait_until(lambda: len(standin.requests) == 2)
            assert relay.report() == TOO_MANY_CALLS
        assert results[0].result() == (503, "unavailable")


def test_slow_clients(tmp_path: Path) -> None:
    """Slow headers and bodies are cut off, and they and idle connections delay no other call."""
    setup = override_constants(
        "tbot_otel.relay.server", _HEADER_TIMEOUT_MILLIS=2000
    ) + override_constants("tbot_otel.relay.bodies", BODY_TIMEOUT_SECONDS=2)
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


def test_idle_clients(tmp_path: Path) -> None:
    """Idle connections at the limit are closed, so that others are accepted."""
    max_connections = 50
    setup = override_constants(
        "tbot_otel.relay.server", MAX_CONNECTIONS=max_connections, _HEADER_TIMEOUT_MILLIS=3000
    )
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
    ):
        (worker,) = relay.worker_pids()
        for sent in (b"", b"P"):
            assert relay.report() == (200, "")
            # The connection of that report may still be among these. No later one has its name.
            before = open_files(worker)
            with contextlib.ExitStack() as stack:
                idle = [stack.enter_context(relay.connect()) for _ in range(max_connections + 10)]
                for connection in idle:
                    connection.sendall(sent)
                wait_until(
                    lambda: len(open_files(worker).keys() - before.keys()) >= max_connections  # noqa: B023 - called now
                )
                assert relay.report() == (200, "")
                for connection in idle:
                    with contextlib.suppress(ConnectionError):
                        assert not connection.recv(1000).startswith(b"HTTP/1.1 2")
            # No descriptor leaks.
            wait_until(lambda: not open_files(worker) - before)  # noqa: B023 - called now
