"""Collectors that are down, late, silent or reject; and processes that exit, fork or opt out."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme

from support.collectors import Collector, MakeCollector
from support.credentials import install_credential_providers
from support.otlp import HTTP_EXPORTER_RETRIES, PROTOCOLS, partial_success, received_records
from support.processes import WAIT_SECONDS, run_python
from support.standins import UNREACHABLE_PORTS, GRPCStandin, HTTPStandin, Response, silent_port
from support.starts import own_record, record_start_in_process
from tbot_otel import Outcome, StartEvent, Status, TbotLogExporter, record_start
from tbot_otel.sender import EXIT_TIMEOUT_SECONDS
from tbot_otel.session import Start

EVENT = StartEvent(run_mode="daemon", version="18.3.0")

ACCEPTED = "the Collector accepted it"
UNOBSERVED = "the response was not observed"


def html(body: bytes) -> Response:
    """A page in place of an OTLP response, as from a captive portal."""
    return Response(200, body, {"Content-Type": "text/html"})


PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json; charset=utf-8"}
REJECTED = "the Collector rejected 1 of the records sent"
NOT_A_RECEIVER = "the response is not from an OTLP receiver"

HTTP_RESPONSES: dict[str, tuple[list[Response], str, str]] = {
    "empty": ([Response(200, b"")], "DELIVERED", ACCEPTED),
    "protobuf": ([Response(200, b"", PROTOBUF)], "DELIVERED", ACCEPTED),
    "JSON": ([Response(200, b"{}", JSON)], "DELIVERED", ACCEPTED),
    "a warning": (
        [Response(200, partial_success(0).SerializeToString(), PROTOBUF)],
        "DELIVERED",
        ACCEPTED,
    ),
    "rejected, protobuf": (
        [Response(200, partial_success(1).SerializeToString(), PROTOBUF)],
        "FAILED",
        REJECTED,
    ),
    "rejected, JSON": (
        [Response(200, b'{"partialSuccess": {"rejectedLogRecords": "1"}, "new": 1}', JSON)],
        "FAILED",
        REJECTED,
    ),
    "broken JSON": ([Response(200, b"{", JSON)], "FAILED", NOT_A_RECEIVER),
    "too large": ([Response(200, b"{}" + b" " * 2**16, JSON)], "FAILED", NOT_A_RECEIVER),
    "portal": ([html(b"<!DOCTYPE html><html>Log in</html>")], "FAILED", NOT_A_RECEIVER),
    "portal, after a line": ([html(b"\r\n<html>Log in</html>\n")], "FAILED", NOT_A_RECEIVER),
    # This page is also a protobuf message of unknown fields.
    "web server": ([html(b"It works!")], "FAILED", NOT_A_RECEIVER),
    "304": ([Response(304)], "FAILED", "the Collector responded with 304"),
    "400": ([Response(400)], "FAILED", "the Collector responded with 400"),
    "401": ([Response(401)], "FAILED", "the Collector responded with 401"),
    "404": ([Response(404)], "FAILED", "the Collector responded with 404"),
    "503, then 200": ([Response(503), Response()], "DELIVERED", ACCEPTED),
    "503, then 400": ([Response(503), Response(400)], "FAILED", "the Collector responded with 400"),
    "503, then rejected": (
        [Response(503), Response(200, partial_success(1).SerializeToString(), PROTOBUF)],
        "FAILED",
        REJECTED,
    ),
}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[TbotLogExporter]:
    """An exporter that sends on the thread of the test."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")
    exporter = TbotLogExporter()
    yield exporter
    exporter.shutdown()


def export(exporter: TbotLogExporter) -> Outcome:
    """Export the record of a start."""
    start = Start()
    exporter.export([own_record(start)])
    return start.outcome


Export = Callable[..., tuple[str, str]]


@pytest.fixture
def export_to(exporter: TbotLogExporter, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Return a function that exports a start, and returns the status and the reason."""

    def export_to(
        endpoint: str, protocol: str = "http/protobuf", **environ: str
    ) -> tuple[str, str]:
        environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        outcome = export(exporter)
        return outcome.status.name, outcome.reason

    return export_to


@pytest.mark.parametrize("name", HTTP_RESPONSES)
def test_http_responses(name: str, export_to: Export) -> None:
    """Only a successful OTLP response is a delivery, and only temporary errors are retried."""
    responses, *outcome = HTTP_RESPONSES[name]
    with HTTPStandin(*responses) as collector:
        assert export_to(collector.endpoint) == tuple(outcome)
    assert len(collector.requests) == len(responses)


@pytest.mark.parametrize("status", [429, 503] if HTTP_EXPORTER_RETRIES else [429])
def test_retry_after(status: int, export_to: Export) -> None:
    """An official exporter that retries waits as long as a busy Collector asks for."""
    before = time.monotonic()
    with HTTPStandin(Response(status, headers={"Retry-After": "2"}), Response()) as collector:
        outcome = export_to(collector.endpoint)
    if HTTP_EXPORTER_RETRIES:
        assert (outcome, len(collector.requests)) == (("DELIVERED", ACCEPTED), 2)
        # Without the header, it would retry within 1.2 seconds.
        assert time.monotonic() - before >= 2
    else:
        assert outcome == ("FAILED", "the Collector responded with 429")
        assert len(collector.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(status: int, export_to: Export) -> None:
    """A redirect is not followed, and is not a delivery."""
    with HTTPStandin(Response()) as other:
        headers = {"Location": f"{other.endpoint}/v1/logs"}
        with HTTPStandin(Response(status, headers=headers)) as collector:
            outcome = export_to(collector.endpoint)
    assert outcome == ("FAILED", f"the Collector responded with {status}")
    assert (len(collector.requests), other.requests) == (1, [])


def test_cookies(exporter: TbotLogExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie, which would connect one start to the next, is not sent back."""
    with HTTPStandin(Response(headers={"Set-Cookie": "start=1; Path=/"})) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        outcomes = [export(exporter).status for _ in range(2)]
    assert outcomes == [Status.DELIVERED] * 2
    assert ["cookie" in request.headers for request in collector.requests] == [False, False]


def test_reason_of_each_export(exporter: TbotLogExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response to one export is not the reason of the next, which gets no response."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with HTTPStandin(Response(400, headers={"Connection": "close"})) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        responded = export(exporter)
    unreachable = export(exporter)
    assert (responded.status, unreachable.status) == (Status.FAILED, Status.FAILED)
    assert responded.reason == "the Collector responded with 400"
    assert "400" not in unreachable.reason


GRPC_CODES = {
    ("OK",): "DELIVERED",
    ("UNAVAILABLE", "OK"): "DELIVERED",
    ("UNAVAILABLE", "PERMISSION_DENIED"): "FAILED",
    ("INVALID_ARGUMENT",): "FAILED",
    ("UNAUTHENTICATED",): "FAILED",
    ("UNIMPLEMENTED",): "FAILED",
}


@pytest.mark.parametrize("codes", GRPC_CODES, ids=" ".join)
def test_grpc_codes(codes: tuple[str, ...], export_to: Export) -> None:
    """Over gRPC too, only temporary errors are retried."""
    with GRPCStandin(*codes) as collector:
        outcome = export_to(collector.endpoint, "grpc")
    reason = f"the Collector did not accept the export ({codes[-1]})"
    assert outcome == (GRPC_CODES[codes], ACCEPTED if codes[-1] == "OK" else reason)
    assert len(collector.requests) == len(codes)


@pytest.mark.parametrize(
    ("rejected", "outcome"), [(0, ("DELIVERED", ACCEPTED)), (1, ("FAILED", REJECTED))]
)
def test_grpc_partial_success(rejected: int, outcome: tuple[str, str], export_to: Export) -> None:
    """Over gRPC too, a successful response that rejects a record is not a delivery."""
    with GRPCStandin(body=partial_success(rejected).SerializeToString()) as collector:
        assert export_to(collector.endpoint, "grpc") == outcome
    assert len(collector.requests) == 1


@pytest.mark.parametrize("state", UNREACHABLE_PORTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unreachable(protocol: str, state: str) -> None:
    """With a Collector that is down or silent, the start fails, and the reason names it."""
    with UNREACHABLE_PORTS[state]() as port:
        sent = record_start_in_process(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="0.5",
        )
    assert sent.status == "FAILED"
    assert "Collector" in sent.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_port_of_another_protocol(protocol: str, collector: Collector, export_to: Export) -> None:
    """An export to the port of another protocol fails."""
    (other,) = set(PROTOCOLS) - {protocol}
    timeout = {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"}
    assert export_to(collector.endpoint(other), protocol, **timeout)[0] == "FAILED"


@pytest.fixture
def choose_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Opt in, and return a function that sets the protocol and the endpoint in this process."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")

    def choose(protocol: str, endpoint: str) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)

    yield choose
    # The sending thread keeps its exporter, and with it the endpoint.
    for thread in threading.enumerate():
        if thread.name == "tbot_otel":
            thread.join(WAIT_SECONDS)


@pytest.mark.parametrize("protocol", PROTOCOLS if HTTP_EXPORTER_RETRIES else ["grpc"])
def test_late_collector(
    protocol: str,
    make_collector: MakeCollector,
    tmp_path: Path,
    choose_collector: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Collector that starts late receives the start, if the official exporter retries."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(WAIT_SECONDS))
    late = make_collector(tmp_path, None)
    choose_collector(protocol, late.endpoint(protocol))
    session = record_start(EVENT)
    assert session.flush(0.3).status is Status.PENDING
    with late.running():
        outcome = session.flush(WAIT_SECONDS)
        assert outcome.status is Status.DELIVERED, outcome
        late.find(session.id)


def test_grpc_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over gRPC, the pauses between connection attempts do not grow."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")
    connections = 0
    deadline = time.monotonic() + 12
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        exporter = TbotLogExporter(protocol="grpc", endpoint=endpoint, timeout=500)

        def send() -> None:
            while time.monotonic() < deadline:
                assert export(exporter).status is Status.FAILED
                time.sleep(0.1)
            exporter.shutdown()

        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(send)
            server.settimeout(1)
            while not sending.done():
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()
                    connections += 1
            sending.result()
    # With gRPC's default pauses, which grow, there are 5.
    assert connections >= 8


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_flush(
    protocol: str, choose_collector: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush waits no longer than its timeout, and returns the outcome so far."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with silent_port() as port:
        choose_collector(protocol, f"http://127.0.0.1:{port}")
        session = record_start(EVENT)
        for timeout in (0, 0.1):
            outcome = session.flush(timeout)
            assert outcome.status is Status.PENDING
            assert outcome.reason == "the record is still being sent"
        assert session.flush(WAIT_SECONDS).status is Status.FAILED


MANY_STARTS_SCRIPT = """
from tbot_otel import StartEvent, record_start
sessions = [record_start(StartEvent(run_mode="daemon", version="18.3.0")) for _ in range(65)]
for session in sessions:
    print(session.flush(0))
"""


def test_too_many_starts() -> None:
    """Of 65 starts at once, the last one fails immediately, with the reason."""
    with silent_port() as port:
        done = run_python(
            "-c",
            MANY_STARTS_SCRIPT,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        )
    *pending, last = done.stdout.splitlines()
    assert pending == ["Outcome(Status.PENDING, 'the record is still being sent')"] * 64
    assert last == "Outcome(Status.FAILED, '64 starts are being sent already')"
    assert (done.returncode, done.stderr) == (0, "")


# Exit handlers run last in, first out: report runs after ours, and measures it.
EXIT_SCRIPT = """
import atexit, json, sys, time

def report():
    print(json.dumps([sessions[0].id, sessions[0].flush(0).status.name, time.monotonic() - ended]))

atexit.register(report)
from tbot_otel import StartEvent, record_start, sender
count, seconds, ending = sys.argv[1:]
sender.EXIT_TIMEOUT_SECONDS = float(seconds)
event = StartEvent(run_mode="daemon", version="18.3.0")
sessions = [record_start(event) for _ in range(int(count))]
ended = time.monotonic()
exec(ending)
"""
ENDINGS = {"pass": 0, "sys.exit(7)": 7, "raise RuntimeError": 1}
# The time that a busy machine may add to a bound, in seconds.
MARGIN = 5.0


def exit_early(
    protocol: str,
    endpoint: str,
    *,
    ending: str = "pass",
    starts: int = 1,
    exit_timeout: float = EXIT_TIMEOUT_SECONDS,
    **environ: str,
) -> tuple[str, str, float]:
    """Record starts in a process that exits at once.

    Args:
        protocol: The protocol.
        endpoint: The endpoint.
        ending: The statement that ends the process.
        starts: The number of starts.
        exit_timeout: The longest wait at exit, in seconds.
        environ: More variables.

    Returns:
        The session id and the status of the first start, and the seconds that exiting took.
    """
    done = run_python(
        *("-c", EXIT_SCRIPT, str(starts), str(exit_timeout), ending),
        timeout=60,
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        **environ,
    )
    assert done.returncode == ENDINGS[ending], done.stderr
    session_id, status, seconds = json.loads(done.stdout)
    return session_id, status, seconds


@pytest.mark.parametrize(
    ("protocol", "ending"), [*(("http/protobuf", ending) for ending in ENDINGS), ("grpc", "pass")]
)
def test_exit_delivers(protocol: str, ending: str, collector: Collector) -> None:
    """A process that exits at once delivers, for each way to exit, and keeps its status."""
    session_id, status, _ = exit_early(
        protocol, collector.endpoint(protocol), ending=ending, exit_timeout=WAIT_SECONDS
    )
    assert status == "DELIVERED"
    collector.find(session_id)


@pytest.mark.parametrize(
    ("protocol", "state", "ending"),
    [
        *((protocol, state, "pass") for protocol in PROTOCOLS for state in UNREACHABLE_PORTS),
        *(("http/protobuf", "silent", ending) for ending in ENDINGS if ending != "pass"),
    ],
)
def test_exit_is_bounded(protocol: str, state: str, ending: str) -> None:
    """With an unreachable Collector, a process exits within 2 seconds, with its status."""
    with UNREACHABLE_PORTS[state]() as port:
        _, status, seconds = exit_early(protocol, f"http://127.0.0.1:{port}", ending=ending)
    assert status in ("PENDING", "FAILED")
    assert EXIT_TIMEOUT_SECONDS == 2
    # An export takes 10 seconds.
    assert seconds < 2 + MARGIN
    if state == "silent":
        assert seconds > 1.9


def test_exit_waits_for_response() -> None:
    """At exit, a process waits for the Collector's response."""
    with HTTPStandin(Response(delay=1)) as collector:
        _, status, seconds = exit_early(
            "http/protobuf", collector.endpoint, exit_timeout=WAIT_SECONDS
        )
    assert status == "DELIVERED"
    assert 1 <= seconds < WAIT_SECONDS


@pytest.mark.parametrize(("protocol", "form"), [("http/protobuf", ""), ("grpc", "LOGS_")])
def test_exit_is_bounded_by_the_timeout(protocol: str, form: str) -> None:
    """A shorter timeout of the exporter bounds the wait at exit, for any number of starts."""
    timeout = {f"OTEL_EXPORTER_OTLP_{form}TIMEOUT": "0.3"}
    with silent_port() as port:
        _, _, seconds = exit_early(
            *(protocol, f"http://127.0.0.1:{port}"),
            starts=60,
            exit_timeout=WAIT_SECONDS,
            **timeout,
        )
    # One after another, their exports take 18 seconds.
    assert seconds < 0.3 + MARGIN


# By default, a fork waits for imports for two seconds, which are too short on a busy machine.
FORK_SCRIPT = """
import os, signal, sys, time
from tbot_otel import StartEvent, forking, record_start
forking.FORK_WAIT_TIMEOUT_SECONDS = 30
event = StartEvent(run_mode="daemon", version="18.3.0")
parent = record_start(event)
when, module = sys.argv[1:]
deadline = time.monotonic() + 30
while when == "importing" and module not in sys.modules and time.monotonic() < deadline:
    time.sleep(0.001)
if when == "delivered":
    parent.flush(30)
process = os.fork()
if process == 0:
    signal.alarm(30)
    from opentelemetry.exporter.otlp.proto.http import _log_exporter
    print(record_start(event).flush(30), parent.flush(30).status.name)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(process, 0)
print(parent.flush(30))
"""


@pytest.mark.parametrize(
    ("when", "module"),
    [
        ("at once", ""),
        ("importing", "tbot_otel.otlp.exporter"),
        ("importing", "opentelemetry.exporter.otlp.proto.http"),
        ("delivered", ""),
    ],
)
def test_fork(when: str, module: str) -> None:
    """A forked child can import and record, and sends no start of its parent."""
    with HTTPStandin(Response(delay=0.2)) as collector:
        done = run_python(
            *("-c", FORK_SCRIPT, when, module),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            # Python 3.12 warns of a fork while threads run.
            PYTHONWARNINGS="error,ignore::DeprecationWarning",
        )
    parent_status = "DELIVERED" if when == "delivered" else "PENDING"
    delivered = f"Outcome(Status.DELIVERED, '{ACCEPTED}')"
    assert done.stdout.splitlines() == [f"{delivered} {parent_status}", delivered], done.stderr
    (first, _), (second, _) = received_records(collector.requests)
    assert first["session.id"] != second["session.id"]


@pytest.fixture
def providers(tmp_path: Path) -> str:
    """A folder with an installed package that has credential providers."""
    return install_credential_providers(tmp_path)


@pytest.mark.parametrize("signal", ["", "LOGS_"])
def test_http_credential_provider(signal: str, providers: str) -> None:
    """The HTTP session of a user's credential provider is used, and is not observed."""
    with HTTPStandin(Response()) as collector:
        sent = record_start_in_process(
            PYTHONPATH=providers,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            **{f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{signal}CREDENTIAL_PROVIDER": "session"},
        )
    assert (sent.status, sent.reason) == ("UNOBSERVED", UNOBSERVED)
    (request,) = collector.requests
    assert request.headers["authorization"] == "Bearer provided"


def test_grpc_credential_provider(providers: str, tmp_path: Path) -> None:
    """Over gRPC, a user's credential provider wins over the files of the variables."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    with GRPCStandin(credentials=credentials) as collector:
        sent = record_start_in_process(
            PYTHONPATH=providers,
            PROVIDED_CA=str(tmp_path / "ca.pem"),
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "other.pem"),
            OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER="channel",
        )
    assert sent.status == "DELIVERED"
    assert len(collector.requests) == 1
