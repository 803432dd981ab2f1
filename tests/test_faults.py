"""Collectors that are down, late, silent or refuse; and processes that end, fork or opt out."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from collectors import PATIENCE, Answer, Request, Rotel, Standin, free_port, plain, run, silent
from tbot_otel import Outcome, Session, StartEvent, Status, TbotLogExporter, record_start
from tbot_otel.record import of_start, readable
from test_protocols import GrpcStandin, start

EVENT = StartEvent(run_mode="daemon", version="18.3.0")
PROTOCOLS = ["http/protobuf", "grpc"]
# The HTTP exporter of 1.39 tries neither an answer of 429 nor a refused connection again.
HTTP_RETRIES = not version("opentelemetry-exporter-otlp-proto-http").startswith("1.39.")

TOOK_IT = "the Collector took it"


def partial(rejected: int) -> ExportLogsServiceResponse:
    """An answer that rejects some of the records."""
    return ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(
            rejected_log_records=rejected, error_message="too long"
        )
    )


def html(body: bytes) -> Answer:
    """A page where there should be an answer of OTLP: a captive portal's."""
    return Answer(200, body, {"Content-Type": "text/html"})


PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json; charset=utf-8"}
REJECTED = "the Collector rejected 1 of the records sent"
NO_RECEIVER = "what answered is no OTLP receiver"

HTTP_ANSWERS: dict[str, tuple[list[Answer], str, str]] = {
    "nothing": ([Answer(200, b"")], "DELIVERED", TOOK_IT),
    "protobuf": ([Answer(200, b"", PROTOBUF)], "DELIVERED", TOOK_IT),
    "JSON": ([Answer(200, b"{}", JSON)], "DELIVERED", TOOK_IT),
    "a warning": ([Answer(200, partial(0).SerializeToString(), PROTOBUF)], "DELIVERED", TOOK_IT),
    "rejected, protobuf": (
        [Answer(200, partial(1).SerializeToString(), PROTOBUF)],
        "FAILED",
        REJECTED,
    ),
    "rejected, JSON": (
        [Answer(200, b'{"partialSuccess": {"rejectedLogRecords": "1"}, "new": 1}', JSON)],
        "FAILED",
        REJECTED,
    ),
    "broken JSON": ([Answer(200, b"{", JSON)], "FAILED", NO_RECEIVER),
    "portal": ([html(b"<!DOCTYPE html><html>Log in</html>")], "FAILED", NO_RECEIVER),
    "portal, after a line": ([html(b"\r\n<html>Log in</html>\n")], "FAILED", NO_RECEIVER),
    # To protobuf, this page is a message of unknown fields.
    "web server": ([html(b"It works!")], "FAILED", NO_RECEIVER),
    "304": ([Answer(304)], "FAILED", "the Collector answered 304"),
    "400": ([Answer(400)], "FAILED", "the Collector answered 400"),
    "401": ([Answer(401)], "FAILED", "the Collector answered 401"),
    "404": ([Answer(404)], "FAILED", "the Collector answered 404"),
    "503, then 200": ([Answer(503), Answer()], "DELIVERED", TOOK_IT),
    "503, then 400": ([Answer(503), Answer(400)], "FAILED", "the Collector answered 400"),
    "503, then rejected": (
        [Answer(503), Answer(200, partial(1).SerializeToString(), PROTOBUF)],
        "FAILED",
        REJECTED,
    ),
}


@pytest.mark.parametrize("name", HTTP_ANSWERS)
def test_http_answers(name: str) -> None:
    """Only an OTLP answer of success is a delivery, and only what may pass is tried again."""
    answers, status, reason = HTTP_ANSWERS[name]
    with Standin(*answers) as collector:
        sent = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    assert (sent.status, sent.reason) == (status, reason)
    assert len(collector.requests) == len(answers)


def test_retry_after() -> None:
    """A Collector that is busy is asked again when it said, where the official exporter does so."""
    began = time.monotonic()
    with Standin(Answer(429, headers={"Retry-After": "2"}), Answer()) as collector:
        sent = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    if HTTP_RETRIES:
        assert (sent.status, len(collector.requests)) == ("DELIVERED", 2)
        # Of its own accord it would come again within 1.2 seconds.
        assert time.monotonic() - began >= 2
    else:
        assert (sent.status, len(collector.requests)) == ("FAILED", 1)
        assert sent.reason == "the Collector answered 429"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(status: int) -> None:
    """A redirect is not followed, wherever it leads, and is no delivery."""
    with Standin(Answer()) as other:
        headers = {"Location": f"{other.endpoint}/v1/logs"}
        with Standin(Answer(status, headers=headers)) as collector:
            sent = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    assert (sent.status, sent.reason) == ("FAILED", f"the Collector answered {status}")
    assert (len(collector.requests), other.requests) == (1, [])


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[TbotLogExporter]:
    """An exporter for all records of a test, which all leave from its thread."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")
    exporter = TbotLogExporter(timeout=1_000)
    yield exporter
    exporter.shutdown()


def export(exporter: TbotLogExporter) -> Outcome:
    """Export the record of a start."""
    session = Session()
    exporter.export([readable(of_start(EVENT, session))])
    return session.flush(0)


def test_cookies(exporter: TbotLogExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie of the Collector's, which would tie one start to the next, is not sent back."""
    with Standin(Answer(headers={"Set-Cookie": "start=1; Path=/"})) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        outcomes = [export(exporter).status for _ in range(2)]
    assert outcomes == [Status.DELIVERED] * 2
    assert ["cookie" in request.headers for request in collector.requests] == [False, False]


@pytest.mark.parametrize("no_proxy", ["", "127.0.0.1"])
def test_proxy(exporter: TbotLogExporter, monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    """Every export takes the proxy that the variables name, unless they except the Collector."""
    with Standin(Answer()) as collector, Standin(Answer()) as proxy:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        monkeypatch.setenv("no_proxy", no_proxy)
        outcomes = [export(exporter).status for _ in range(2)]
    assert outcomes == [Status.DELIVERED] * 2
    direct = [request.path for request in collector.requests]
    led = [request.path for request in proxy.requests]
    if no_proxy:
        assert (direct, led) == (["/v1/logs"] * 2, [])
    else:
        assert (direct, led) == ([], [f"{collector.endpoint}/v1/logs"] * 2)


def test_reasons_do_not_linger(exporter: TbotLogExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to one export is not the reason of the next one, which got none."""
    with Standin(Answer(400, headers={"Connection": "close"})) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        answered = export(exporter)
    unanswered = export(exporter)
    assert (answered.status, unanswered.status) == (Status.FAILED, Status.FAILED)
    assert answered.reason == "the Collector answered 400"
    assert "400" not in unanswered.reason


GRPC_CODES = {
    ("OK",): "DELIVERED",
    ("UNAVAILABLE", "OK"): "DELIVERED",
    ("UNAVAILABLE", "PERMISSION_DENIED"): "FAILED",
    ("INVALID_ARGUMENT",): "FAILED",
    ("UNAUTHENTICATED",): "FAILED",
    ("UNIMPLEMENTED",): "FAILED",
}


@pytest.mark.parametrize("codes", GRPC_CODES, ids=" ".join)
def test_grpc_codes(codes: tuple[str, ...]) -> None:
    """Over gRPC too, only what may pass is tried again."""
    with GrpcStandin(*codes) as collector:
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint
        )
    reason = f"the Collector gave no answer of success ({codes[-1]})"
    assert (sent.status, sent.reason) == (
        *(GRPC_CODES[codes], TOOK_IT if codes[-1] == "OK" else reason),
    )
    assert len(collector.requests) == len(codes)


@pytest.mark.parametrize(
    ("rejected", "outcome"), [(0, ("DELIVERED", TOOK_IT)), (1, ("FAILED", REJECTED))]
)
def test_grpc_partial_success(rejected: int, outcome: tuple[str, str]) -> None:
    """Over gRPC too, an answer of success that rejects a record is no delivery."""
    with GrpcStandin(body=partial(rejected).SerializeToString()) as collector:
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint
        )
    assert (sent.status, sent.reason) == outcome
    assert len(collector.requests) == 1


@contextlib.contextmanager
def refused() -> Iterator[int]:
    """A port that nothing listens on."""
    yield free_port()


AWAY = {"refused": refused, "silent": silent}


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_away(protocol: str, away: str) -> None:
    """A Collector that is down or silent is a failure, and its reason says that it was that."""
    with AWAY[away]() as port:
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="0.5",
        )
    assert sent.status == "FAILED"
    assert "Collector" in sent.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_protocols_port(protocol: str, rotel: Rotel) -> None:
    """A port that speaks another protocol is a failure."""
    (other,) = set(PROTOCOLS) - {protocol}
    sent = start(
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=rotel.endpoint(other),
        OTEL_EXPORTER_OTLP_TIMEOUT="0.5",
    )
    assert sent.status == "FAILED"


@pytest.fixture
def send_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Opt in, and choose the protocol and endpoint of this process's starts."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")

    def choose(protocol: str, endpoint: str) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)

    yield choose
    # Until the thread that sends has ended, it keeps its exporter.
    for thread in threading.enumerate():
        if thread.name == "tbot_otel":
            thread.join(PATIENCE)


@pytest.mark.parametrize("protocol", PROTOCOLS if HTTP_RETRIES else ["grpc"])
def test_late(protocol: str, tmp_path: Path, send_to: Callable[[str, str], None]) -> None:
    """A Collector that starts after the start gets it, where the official exporter tries again."""
    late = Rotel(tmp_path)
    send_to(protocol, late.endpoint(protocol))
    session = record_start(EVENT)
    assert session.flush(0.3).status is Status.PENDING
    with late.running():
        outcome = session.flush(PATIENCE)
        assert outcome.status is Status.DELIVERED, outcome
        late.find(session.id)


def test_long_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over gRPC, a Collector that is long away is looked for as often as one that has just left."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")
    looked_for = 0
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
                    looked_for += 1
            sending.result()
    # With gRPC's own pauses, which grow, it would be 5 times.
    assert looked_for >= 8


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_flush(
    protocol: str, send_to: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush waits no longer than it may, and says what it knows by then."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with silent() as port:
        send_to(protocol, f"http://127.0.0.1:{port}")
        session = record_start(EVENT)
        for timeout in (0, 0.1):
            outcome = session.flush(timeout)
            assert outcome.status is Status.PENDING
            assert outcome.reason == "the record is still under way"
        assert session.flush(PATIENCE).status is Status.FAILED


WITHDRAWALS = {
    "TELEPORT_ANONYMOUS_TELEMETRY": "0",
    "OTEL_SDK_DISABLED": "true",
    "DO_NOT_TRACK": "1",
}


@pytest.mark.parametrize("variable", WITHDRAWALS)
def test_consent_withdrawn(
    variable: str, send_to: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consent that is withdrawn holds back what waits behind a record under way."""
    with Standin(Answer(delay=1)) as collector:
        send_to("http/protobuf", collector.endpoint)
        under_way = record_start(EVENT)
        deadline = time.monotonic() + PATIENCE
        while not collector.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        waiting = record_start(EVENT)
        monkeypatch.setenv(variable, WITHDRAWALS[variable])
        refusal = waiting.flush(PATIENCE)
    assert under_way.flush(0).status is Status.DELIVERED
    assert refusal.status is Status.REFUSED
    assert refusal.reason.startswith(variable)
    (request,) = collector.requests
    assert under_way.id.encode() in request.body


MANY = """
from tbot_otel import StartEvent, record_start
sessions = [record_start(StartEvent(run_mode="daemon", version="18.3.0")) for _ in range(65)]
for session in sessions:
    print(session.flush(0))
"""


def test_too_many() -> None:
    """Of 65 records under way, the last one fails at once, and says why."""
    with silent() as port:
        done = run(
            "-c",
            MANY,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        )
    *under_way, last = done.stdout.splitlines()
    assert under_way == ["Outcome(Status.PENDING, 'the record is still under way')"] * 64
    assert last == "Outcome(Status.FAILED, '64 starts are under way already')"
    assert (done.returncode, done.stderr) == (0, "")


# Exit handlers run last in, first out: this one comes after ours, and measures it.
ENDS = """
import atexit, json, sys, time

def report():
    print(json.dumps([sessions[0].id, sessions[0].flush(0).status.name, time.monotonic() - ended]))

atexit.register(report)
from tbot_otel import StartEvent, record_start
count, ending = sys.argv[1:]
event = StartEvent(run_mode="daemon", version="18.3.0")
sessions = [record_start(event) for _ in range(int(count))]
ended = time.monotonic()
exec(ending)
"""
ENDINGS = {"pass": 0, "sys.exit(7)": 7, "raise RuntimeError": 1}
SLACK = 1.4


def end(
    protocol: str, endpoint: str, *, ending: str = "pass", count: int = 1, **environ: str
) -> tuple[str, str, float]:
    """Record starts in a process that ends at once: session, status and wait of the first."""
    done = run(
        *("-c", ENDS, str(count), ending),
        timeout=30,
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        **environ,
    )
    assert done.returncode == ENDINGS[ending], done.stderr
    session, status, waited = json.loads(done.stdout)
    return session, status, waited


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exit_delivers(protocol: str, ending: str, rotel: Rotel) -> None:
    """A process that ends at once delivers, however it ends, and keeps its status."""
    for _ in range(7):
        session, status, _ = end(protocol, rotel.endpoint(protocol), ending=ending)
        assert status == "DELIVERED"
        rotel.find(session)


@pytest.mark.parametrize(
    ("protocol", "away", "ending"),
    [
        *((protocol, away, "pass") for protocol in PROTOCOLS for away in AWAY),
        *(("http/protobuf", "silent", ending) for ending in ENDINGS if ending != "pass"),
    ],
)
def test_exit_is_bounded(protocol: str, away: str, ending: str) -> None:
    """With its Collector away a process ends in 2 seconds, however it ends, with its status."""
    with AWAY[away]() as port:
        _, status, waited = end(protocol, f"http://127.0.0.1:{port}", ending=ending)
    assert status in ("PENDING", "FAILED")
    assert waited < 2 + SLACK
    if away == "silent":
        assert waited > 1.9


def test_exit_waits_for_an_answer() -> None:
    """A Collector that answers within that time is waited for."""
    with Standin(Answer(delay=1)) as collector:
        _, status, waited = end("http/protobuf", collector.endpoint)
    assert (status, waited < 2 + SLACK) == ("DELIVERED", True)


@pytest.mark.parametrize("form", ["", "LOGS_"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exit_is_bounded_by_the_timeout(protocol: str, form: str) -> None:
    """A time-out below 2 seconds bounds the exit, also where many records are under way."""
    with silent() as port:
        timeout = {f"OTEL_EXPORTER_OTLP_{form}TIMEOUT": "0.3"}
        _, _, waited = end(protocol, f"http://127.0.0.1:{port}", count=20, **timeout)
    assert waited < 0.3 + SLACK


def received(requests: list[Request]) -> list[tuple[dict[str, object], LogRecord]]:
    """The records in requests, each with the attributes of its Resource."""
    exports = [ExportLogsServiceRequest.FromString(request.body) for request in requests]
    return [
        (plain(MessageToDict(logs.resource)["attributes"]), record)
        for export in exports
        for logs in export.resource_logs
        for scope in logs.scope_logs
        for record in scope.log_records
    ]


FORK = """
import os, signal, sys, time
from tbot_otel import StartEvent, record_start
event = StartEvent(run_mode="daemon", version="18.3.0")
parent = record_start(event)
when, module = sys.argv[1:]
deadline = time.monotonic() + 15
while when == "importing" and module not in sys.modules and time.monotonic() < deadline:
    time.sleep(0.001)
if when == "delivered":
    parent.flush(15)
process = os.fork()
if process == 0:
    signal.alarm(10)
    import requests
    requests.Session()
    print(record_start(event).flush(15), parent.flush(15).status.name)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(process, 0)
print(parent.flush(15))
"""


@pytest.mark.parametrize(
    ("when", "module"),
    [
        ("at once", ""),
        ("importing", "tbot_otel.exporter"),
        ("importing", "requests"),
        ("delivered", ""),
    ],
)
def test_fork(when: str, module: str) -> None:
    """A forked child imports and records as it likes, and sends nothing of its parent's."""
    with Standin(Answer(delay=0.2)) as collector:
        done = run(
            *("-c", FORK, when, module),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            # From 3.12 on Python warns of a fork beside a thread.
            PYTHONWARNINGS="error,ignore::DeprecationWarning",
        )
    of_parent = "DELIVERED" if when == "delivered" else "PENDING"
    delivered = f"Outcome(Status.DELIVERED, '{TOOK_IT}')"
    assert done.stdout.splitlines() == [f"{delivered} {of_parent}", delivered], done.stderr
    (first, _), (second, _) = received(collector.requests)
    assert first["session.id"] != second["session.id"]


PROVIDERS = """
import grpc, os, requests

def session():
    session = requests.Session()
    session.headers["authorization"] = "Bearer provided"
    return session

def channel():
    with open(os.environ["PROVIDED_CA"], "rb") as file:
        return grpc.ssl_channel_credentials(file.read())
"""


@pytest.fixture
def providers(tmp_path: Path) -> str:
    """A folder with an installed package that has credential providers."""
    (tmp_path / "providers.py").write_text(PROVIDERS)
    metadata = tmp_path / "providers-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: providers\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_otlp_credential_provider]\n"
        "session = providers:session\n"
        "channel = providers:channel\n"
    )
    return str(tmp_path)


@pytest.mark.parametrize("signal", ["", "LOGS_"])
def test_http_credential_provider(signal: str, providers: str) -> None:
    """A user's credential provider brings its own session, and ours does not replace it."""
    with Standin(Answer()) as collector:
        sent = start(
            PYTHONPATH=providers,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            **{f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{signal}CREDENTIAL_PROVIDER": "session"},
        )
    assert sent.status == "DELIVERED"
    (request,) = collector.requests
    assert request.headers["authorization"] == "Bearer provided"


def test_grpc_credential_provider(providers: str, tmp_path: Path) -> None:
    """Over gRPC a user's credential provider wins over the variables' files."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    with GrpcStandin(credentials=credentials) as collector:
        sent = start(
            PYTHONPATH=providers,
            PROVIDED_CA=str(tmp_path / "ca.pem"),
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "other.pem"),
            OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER="channel",
        )
    assert sent.status == "DELIVERED"
    assert len(collector.requests) == 1
