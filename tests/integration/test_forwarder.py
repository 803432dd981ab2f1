"""The forwarder of `tbot-otel run`: one start, a late Collector, and others on the machine."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cases import FULL_ATTRIBUTES
from support.collectors import MakeCollector
from support.core import parse_responses
from support.forwarder import Address, exchange, running_forwarder
from support.messages import (
    KIB,
    MARKER,
    encode_request,
    encode_start,
    http_request,
    new_session_id,
)
from support.otlp import PROTOCOLS, partial_success
from support.processes import wait_until
from support.setup_code import override_constants
from support.standins import (
    GRPCStandin,
    HTTPStandin,
    Response,
    refused_port,
    streaming_port,
)

HTTP, GRPC = PROTOCOLS
STRANGERS = 300
# Attempts follow each other at once.
FAST_RETRIES = override_constants(
    "tbot_otel.run.delivery", _MIN_RETRY_SECONDS=0.1, _MAX_RETRY_SECONDS=0.1
)
ACCEPTED: tuple[list[int], list[str]] = ([200], [])
UNAVAILABLE = ([503], ["unavailable"])
EXHAUSTED = ([429], ["resource_exhausted"])


def report(session_id: str, *, closes: bool = True) -> bytes:
    """A report of a start."""
    request = http_request(
        body=encode_request(encode_start(FULL_ATTRIBUTES), session_id=session_id)
    )
    return request if closes else request.replace(b"Connection: close\r\n", b"")


def log_messages(log: Path) -> list[str]:
    """The messages of a log, without the times and the endpoint."""
    text = re.sub(r" (to|for) \S+ \(\S+\)", "", log.read_text())
    return [line.partition(" tbot-otel run: ")[2] for line in text.splitlines()]


def test_one_start(tmp_path: Path) -> None:
    """A run sends one start. Its report may come again, and other starts are refused."""
    first, other = new_session_id(), new_session_id()
    log = tmp_path / "log"
    with (
        HTTPStandin(Response()) as collector,
        running_forwarder(collector.endpoint, options=("--log", str(log))) as address,
    ):
        sent = report(first, closes=False) + report(other, closes=False) + report(first)
        responses = parse_responses(exchange(address, sent))
        assert responses == ([200, 429, 200], ["resource_exhausted"])
    (request,) = collector.requests
    assert first.encode() in request.body
    assert log_messages(log) == [
        "tbot's start was delivered",
        "tbot's start was not delivered: another start was reported before",
        "tbot's start was delivered",
    ]


def test_refused_start() -> None:
    """A start that the Collector refused can be reported again, and still excludes others."""
    first, other = new_session_id(), new_session_id()
    with (
        HTTPStandin(Response(400)) as collector,
        running_forwarder(collector.endpoint) as address,
    ):
        for session_id, expected in (
            (first, UNAVAILABLE),
            (other, EXHAUSTED),
            (first, UNAVAILABLE),
        ):
            assert parse_responses(exchange(address, report(session_id))) == expected
    assert [first.encode() in request.body for request in collector.requests] == [True, True]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_late_collector(protocol: str, make_collector: MakeCollector, tmp_path: Path) -> None:
    """A start that got ``unavailable`` arrives when the Collector is up, and is recorded once."""
    late = make_collector(tmp_path, None)
    log, record = tmp_path / "log", tmp_path / "record"
    session_id = new_session_id()
    with running_forwarder(
        late.endpoint(protocol),
        FAST_RETRIES,
        ("--log", str(log), "--record", str(record)),
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    ) as address:
        assert parse_responses(exchange(address, report(session_id))) == UNAVAILABLE
        with late.running():
            late.find(session_id)
            # Then the forwarder exits, although the command runs.
            wait_until(address.refuses_connections)
    first, *later = log_messages(log)
    assert first.startswith("tbot's start was not delivered: ")
    assert later == ["tbot's start was delivered"]
    (line,) = record.read_text().splitlines()
    assert session_id in line


def test_slow_export(tmp_path: Path) -> None:
    """An export that succeeds after tbot got ``unavailable`` is in the log, and is not repeated."""
    log = tmp_path / "log"
    setup = FAST_RETRIES + override_constants("tbot_otel.connect", RESPONSE_TIMEOUT_SECONDS=1.0)
    with (
        HTTPStandin(Response(delay=3)) as collector,
        running_forwarder(collector.endpoint, setup, ("--log", str(log))) as address,
    ):
        assert parse_responses(exchange(address, report(new_session_id()))) == UNAVAILABLE
        wait_until(address.refuses_connections)
    assert len(collector.requests) == 1
    assert log_messages(log) == [
        "tbot's start was not delivered: the Collector did not respond in time",
        "tbot's start was delivered",
    ]


@contextlib.contextmanager
def http_collector(*responses: Response) -> Iterator[tuple[str, Callable[[], int]]]:
    """A Collector that gives these responses over HTTP, and its number of requests."""
    with HTTPStandin(*responses) as collector:
        yield collector.endpoint, lambda: len(collector.requests)


@contextlib.contextmanager
def grpc_collector(code: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """A Collector that gives this status over gRPC, and its number of requests."""
    with GRPCStandin(code) as collector:
        yield collector.endpoint, lambda: len(collector.requests)


@contextlib.contextmanager
def silent_collector() -> Iterator[tuple[str, Callable[[], int]]]:
    """A Collector that does not respond, and its number of requests."""
    with streaming_port(b"", b"", 0.1) as (port, sent):
        yield f"http://127.0.0.1:{port}", lambda: len(sent)


MakeStandin = Callable[[], contextlib.AbstractContextManager[tuple[str, Callable[[], int]]]]
TEMPORARY: dict[str, tuple[str, MakeStandin]] = {
    **{str(n): (HTTP, lambda n=n: http_collector(Response(n))) for n in (429, 502, 503, 504)},  # type: ignore[misc]
    **{
        code: (GRPC, lambda code=code: grpc_collector(code))  # type: ignore[misc]
        for code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
    },
    "silent": (HTTP, silent_collector),
}
REJECTION = Response(
    200, partial_success(1).SerializeToString(), {"Content-Type": "application/x-protobuf"}
)
FINAL: dict[str, tuple[str, MakeStandin]] = {
    **{str(n): (HTTP, lambda n=n: http_collector(Response(n))) for n in (400, 401, 404, 413)},  # type: ignore[misc]
    **{
        code: (GRPC, lambda code=code: grpc_collector(code))  # type: ignore[misc]
        for code in ("INVALID_ARGUMENT", "PERMISSION_DENIED")
    },
    "rejected": (HTTP, lambda: http_collector(REJECTION)),
    "not OTLP": (HTTP, lambda: http_collector(Response(200, b"x", {"Content-Type": "text/html"}))),
}


@pytest.mark.parametrize("name", TEMPORARY)
def test_temporary_failure(name: str) -> None:
    """After a temporary failure, the forwarder tries again until the command has exited."""
    protocol, make_standin = TEMPORARY[name]
    with (
        make_standin() as (endpoint, count_requests),
        running_forwarder(
            endpoint,
            FAST_RETRIES,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        ) as address,
    ):
        assert parse_responses(exchange(address, report(new_session_id()))) == UNAVAILABLE
        wait_until(lambda: count_requests() > 4)


@pytest.mark.parametrize("name", FINAL)
def test_final_failure(name: str) -> None:
    """A start that the Collector refused is not sent again."""
    protocol, make_standin = FINAL[name]
    with make_standin() as (endpoint, count_requests):
        with running_forwarder(
            endpoint, FAST_RETRIES, OTEL_EXPORTER_OTLP_PROTOCOL=protocol
        ) as address:
            assert parse_responses(exchange(address, report(new_session_id()))) == UNAVAILABLE
        # The forwarder has lingered for ten times the pause between two attempts.
        assert count_requests() == 1


def test_consent_withdrawn() -> None:
    """Without consent anymore, no further attempt sends anything."""
    withdraw = (
        "import os\n"
        "from tbot_otel import sender\n"
        "submit = sender.submit\n"
        "def submit_and_withdraw(*arguments):\n"
        "    submit(*arguments)\n"
        "    arguments[1].flush(60)\n"
        "    os.environ['DO_NOT_TRACK'] = '1'\n"
        "sender.submit = submit_and_withdraw\n"
    )
    # The pause of the official exporter is longer than its timeout.
    with HTTPStandin(Response(429), Response()) as collector:
        with running_forwarder(
            collector.endpoint, FAST_RETRIES + withdraw, OTEL_EXPORTER_OTLP_TIMEOUT="0.5"
        ) as address:
            assert parse_responses(exchange(address, report(new_session_id()))) == UNAVAILABLE
        assert len(collector.requests) == 1


def test_end_of_retries() -> None:
    """After its idle timeout, the forwarder exits, although tbot runs and nothing was delivered."""
    setup = FAST_RETRIES + override_constants("tbot_otel.run.forwarder", IDLE_TIMEOUT_SECONDS=2.0)
    with (
        refused_port() as port,
        running_forwarder(
            f"http://127.0.0.1:{port}", setup, OTEL_EXPORTER_OTLP_TIMEOUT="1"
        ) as address,
    ):
        assert parse_responses(exchange(address, report(new_session_id()))) == UNAVAILABLE
        wait_until(address.refuses_connections)


@contextlib.contextmanager
def trickling(address: Address, count: int) -> Iterator[list[socket.socket]]:
    """Connections that send a byte of an endless request again and again."""
    stopped = threading.Event()
    connections: list[socket.socket] = []

    def trickle() -> None:
        while not stopped.wait(0.2):
            for connection in connections:
                # The forwarder closes some.
                with contextlib.suppress(OSError):
                    connection.send(b"x")

    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(address.connect())
            connection.sendall(b"POST / HTTP/1.1\r\nX: ")
            connections.append(connection)
        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield connections
        finally:
            stopped.set()
            thread.join()


def test_many_strangers() -> None:
    """Of hundreds of active connections without a request, the oldest make room for the report."""
    # No connection reaches its deadline.
    setup = override_constants("tbot_otel.connect", RESPONSE_TIMEOUT_SECONDS=600.0)
    with (
        HTTPStandin(Response()) as collector,
        running_forwarder(collector.endpoint, setup) as address,
        trickling(address, STRANGERS),
    ):
        assert parse_responses(exchange(address, report(new_session_id()))) == ACCEPTED


def test_deadline_of_a_head() -> None:
    """A connection without a complete request is closed at a deadline, although it is active."""
    setup = override_constants("tbot_otel.connect", RESPONSE_TIMEOUT_SECONDS=2.0)
    with (
        HTTPStandin(Response()) as collector,
        running_forwarder(collector.endpoint, setup) as address,
        trickling(address, 3) as connections,
    ):
        for connection in connections:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""


def process_status(pid: int, name: str) -> int:
    """A number in the status of a process, such as ``VmRSS``, its resident memory in KiB."""
    (number,) = re.findall(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(number)


def test_threads() -> None:
    """While a report is being sent over HTTP, the forwarder has five threads."""
    with (
        silent_collector() as (endpoint, count_requests),
        running_forwarder(endpoint, FAST_RETRIES, OTEL_EXPORTER_OTLP_TIMEOUT="1") as address,
    ):
        assert parse_responses(exchange(address, report(new_session_id()))) == UNAVAILABLE
        requests = count_requests()
        # In an attempt after the first one.
        wait_until(
            lambda: (
                count_requests() > requests
                and process_status(address.forwarder_pid, "Threads") == 5
            )
        )


LARGE_REQUESTS = {
    # Incomplete: one byte is missing.
    "bodies": b"POST / HTTP/1.1\r\nContent-Length: 8191\r\nX: ".ljust(4000, b"x")
    + b"\r\n\r\n".ljust(8190, b"x"),
    "requests": b"GET / HTTP/1.1\r\n\r\n" * 1000,
}


@pytest.mark.parametrize("name", LARGE_REQUESTS)
def test_memory(name: str) -> None:
    """Hundreds of connections with the largest requests cost a few MiB, and delay no report."""
    with (
        HTTPStandin(Response(400)) as collector,
        running_forwarder(collector.endpoint) as address,
        contextlib.ExitStack() as stack,
    ):
        assert parse_responses(exchange(address, report(new_session_id()))) == UNAVAILABLE
        before = process_status(address.forwarder_pid, "VmRSS")
        peak = before
        for _ in range(STRANGERS):
            connection = stack.enter_context(address.connect())
            # The forwarder closes some.
            with contextlib.suppress(OSError):
                connection.sendall(LARGE_REQUESTS[name])
            peak = max(peak, process_status(address.forwarder_pid, "VmRSS"))
        assert parse_responses(exchange(address, report(new_session_id()))) == EXHAUSTED
        assert peak - before < 10 * KIB


def test_out_of_memory() -> None:
    """When memory is short, the kernel kills the forwarder before the command."""
    with HTTPStandin(Response()) as collector, running_forwarder(collector.endpoint) as address:
        assert parse_responses(exchange(address, b"\r\n\r\nGET / HTTP/1.0\r\n\r\n"))[0] == [404]
        scores = [
            Path(f"/proc/{pid}/oom_score_adj").read_text()
            for pid in (address.forwarder_pid, address.command_pid)
        ]
        assert scores == ["1000\n", Path("/proc/self/oom_score_adj").read_text()]


def test_unknown_log_level(tmp_path: Path) -> None:
    """An OTEL_LOG_LEVEL that is not a level is one line in the log, without the value."""
    log = tmp_path / "log"
    with (
        HTTPStandin(Response()) as collector,
        running_forwarder(
            collector.endpoint, options=("--log", str(log)), OTEL_LOG_LEVEL=MARKER
        ) as address,
    ):
        assert parse_responses(exchange(address, report(new_session_id()))) == ACCEPTED
    assert log_messages(log) == [
        "OTEL_LOG_LEVEL: expected debug, info, warn, error or none",
        "tbot's start was delivered",
    ]
