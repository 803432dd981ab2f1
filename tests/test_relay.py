"""The relay: a process of its own, between tbots and Collectors, and what both see of it."""

import contextlib
import gzip
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import chain, cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from connectrpc.client import ConnectClientSync
from connectrpc.codec import proto_binary_codec, proto_json_codec
from connectrpc.compression.gzip import GzipCompression
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.version import __version__ as sdk_version
from protobuf.wkt import Timestamp
from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport

import agent
from cases import WHOLE
from collectors import (
    PATIENCE,
    Answer,
    Official,
    Rotel,
    Standin,
    free_port,
    plain,
    run,
    running,
    silent,
)
from tbot_otel import __version__, destination, otlp
from tbot_otel.connect import METHOD, MOST_BYTES, PATH, Report
from tbot_otel.relay.batch import Batch, lead_exporter_to_messages
from test_anonymity import examples
from test_protocols import GrpcStandin
from test_requests import JSON, MARKER, PROTO, document, field, message, start

KEPT = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
MAIN = "import sys; from tbot_otel.cli import main; sys.exit(main(sys.argv[1:]))"
REJECTED = ExportLogsServiceResponse()
REJECTED.partial_success.rejected_log_records = 1
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


class Relay:
    """A relay's process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, host: str, port: int) -> None:
        self.process = process
        self._log = log
        self.host = host
        self.port = port

    @property
    def url(self) -> str:
        """Where it listens, without TLS."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else self.at("http")

    def at(self, scheme: str) -> str:
        """Where it listens, by the name that its certificate has."""
        return f"{scheme}://localhost:{self.port}"

    def said(self) -> str:
        """What it printed so far."""
        return self._log.read_text()

    def workers(self) -> set[int]:
        """The process ids of its workers."""
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        # Beside them there is multiprocessing's own helper, which is not forked.
        return {
            int(child)
            for child in children
            if b"tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
        }

    def connect(self) -> socket.socket:
        """Connect, patiently."""
        return socket.create_connection((self.host, self.port), PATIENCE)

    def get(self, path: str) -> tuple[int, str]:
        """Ask how it is."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}").get("status", "")

    def post(
        self,
        body: bytes | Iterable[bytes],
        content_type: str = PROTO,
        *,
        path: str = PATH,
        source: str | None = None,
        **headers: str,
    ) -> tuple[int, str, str]:
        """Report by hand, and return the status, the code and the message of the answer."""
        connection = http.client.HTTPConnection(
            self.host, self.port, PATIENCE, (source, 0) if source else None
        )
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            # It may answer before it has the whole body, and close.
            with contextlib.suppress(BrokenPipeError):
                connection.request("POST", path, body, {"Content-Type": content_type, **more})
            answer = connection.getresponse()
            said = answer.read()
        error = json.loads(said) if answer.status != 200 and said else {}
        return answer.status, error.get("code", ""), error.get("message", "")

    def report(self, session: str | None = None, **headers: str) -> tuple[int, str]:
        """Report a start by hand, and return the status and the code of the answer."""
        return self.post(message(start(WHOLE), session=session or new()), **headers)[:2]

    def stop(self) -> int:
        """Stop it, and return its exit status."""
        self.process.terminate()
        return self.process.wait(2 * PATIENCE)


def new() -> str:
    """A session's id, as tbot makes it."""
    return str(uuid.uuid4())


def eventually(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.02)


@contextlib.contextmanager
def relaying(
    folder: Path, endpoint: str, *words: str, first: str = "", host: str = "127.0.0.1", **more: str
) -> Iterator[Relay]:
    """Run a relay until the block ends. It ends well, and no call makes it print a traceback.

    Args:
        folder: Where its output goes.
        endpoint: Where it exports to.
        words: Its options, beside where it listens.
        first: Python that it runs first.
        host: Where it listens.
        more: Its variables.
    """
    port = free_port()
    listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    log = folder / f"relay-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{first}\n{MAIN}", "relay", "--listen", listen, *words],
            env={
                **KEPT,
                "PYTHONWARNINGS": "error",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                **more,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    relay = Relay(process, log, host, port)
    workers = int(words[words.index("--workers") + 1]) if "--workers" in words else 1
    try:
        eventually(lambda: process.poll() is not None or relay.said().count("Started") >= workers)
        assert process.poll() is None, relay.said()
        yield relay
        if process.poll() is None:
            assert relay.stop() == 0
        assert "Traceback" not in relay.said(), relay.said()
    finally:
        if process.poll() is None:
            # Not the workers alone: they would be started again.
            workers_left = relay.workers()
            process.kill()
            process.wait()
            for worker in workers_left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


@contextlib.contextmanager
def meanwhile(*calls: Callable[[], Any]) -> Iterator[list[Future[Any]]]:
    """Call all of these at once, while the block runs."""
    with ThreadPoolExecutor(len(calls)) as threads:
        yield [threads.submit(call) for call in calls]


def exported(standin: Standin) -> list[list[str]]:
    """The sessions of each export that a stand-in has received, without those of none."""
    every = []
    for request in standin.requests:
        if request.path == "/v1/logs":
            logs = ExportLogsServiceRequest.FromString(request.body).resource_logs
            values = [{a.key: a.value.string_value for a in r.resource.attributes} for r in logs]
            every.append([value["session.id"] for value in values])
    return [sessions for sessions in every if sessions]


@pytest.fixture(name="relay", scope="module", params=["http/protobuf", "grpc"])
def relay_to_official(
    request: pytest.FixtureRequest, official: Official, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """A relay in front of the official Collector, for the tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("relay")
    protocol = request.param
    with relaying(
        folder, official.endpoint(protocol), OTEL_EXPORTER_OTLP_PROTOCOL=protocol
    ) as relay:
        yield relay


def call(url: str, session: str, transport: SyncHTTPTransport, at: int, **options: Any) -> str:
    """Report a start at a time by the official runtime, and return the code."""
    request = agent.request(session, oneshot=True)
    seconds, nanos = divmod(at, 10**9)
    request.timestamp = Timestamp(seconds=seconds, nanos=nanos)
    client = ConnectClientSync(url, http_client=SyncClient(transport), **options)
    try:
        client.execute_unary(request=request, method=METHOD, timeout_ms=9000)
    except ConnectError as error:
        return error.code.value
    return "ok"


def check(logs: dict[str, Any], session: str, attributes: dict[str, Any], at: int | None) -> None:
    """Check all of what the official Collector has of a session."""
    assert plain(logs["resource"]["attributes"]) == {
        "service.name": "tbot",
        "session.id": session,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    (scope,) = logs["scopeLogs"]
    assert scope["scope"] == {"name": "tbot_otel", "version": __version__}
    (record,) = scope["logRecords"]
    assert plain(record.pop("attributes")) == attributes
    observed = int(record.pop("observedTimeUnixNano"))
    assert 0 <= time.time_ns() - observed < PATIENCE * 10**9
    happened = int(record.pop("timeUnixNano"))
    assert happened == at if at else abs(observed - happened) < PATIENCE * 10**9
    # Empty, as the Collector writes what is not there.
    assert {name: value for name, value in record.items() if value not in ({}, "", 0)} == {
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": "tbot.start",
    }


@pytest.mark.parametrize("version", [HTTPVersion.HTTP1, HTTPVersion.HTTP2], ids=str)
@pytest.mark.parametrize("codec", [proto_binary_codec(), proto_json_codec()], ids=["proto", "json"])
@pytest.mark.parametrize("compression", [GzipCompression(), None], ids=["gzip", "plain"])
def test_delivered(
    relay: Relay, official: Official, version: HTTPVersion, codec: Any, compression: Any
) -> None:
    """What is acknowledged, the Collector has exactly as reported, and nothing besides."""
    session, at = new(), time.time_ns()
    with SyncHTTPTransport(http_version=version) as transport:
        code = call(relay.url, session, transport, at, codec=codec, send_compression=compression)
    assert code == "ok"
    check(official.find(session), session, agent.REPORTED, at)


@pytest.mark.parametrize("client", agent.CLIENTS)
def test_delivered_of_agents(relay: Relay, official: Official, client: str) -> None:
    """A start that says no time happened when it was received."""
    session = new()
    assert agent.CLIENTS[client](relay.url, agent.request(session, oneshot=True)) == "ok"
    check(official.find(session), session, agent.REPORTED, None)


def test_delivered_to_another(rotel: Rotel, tmp_path: Path) -> None:
    """Another Collector gets the same, with everything that a start can have."""
    session = new()
    with relaying(tmp_path, rotel.endpoint("http")) as relay:
        assert relay.report(session) == (200, "")
    printed = rotel.find(session)
    assert all(f"-> {name}: " in printed for name in WHOLE)
    assert not any(name in printed for name in ("os.type", "host.arch", "host.name"))


@pytest.mark.parametrize("version", [HTTPVersion.HTTP1, HTTPVersion.HTTP2], ids=str)
@pytest.mark.parametrize("protocol", [ProtocolType.GRPC, ProtocolType.GRPC_WEB], ids=str)
def test_other_protocols(relay: Relay, version: HTTPVersion, protocol: ProtocolType) -> None:
    """As gRPC needs what the server has not, it is refused; no such call ends in a traceback."""
    with SyncHTTPTransport(http_version=version) as transport:
        code = call(relay.url, new(), transport, time.time_ns(), protocol=protocol)
    if protocol is ProtocolType.GRPC:
        assert code != "ok"
    assert "Traceback" not in relay.said()
    assert relay.report() == (200, "")


def test_tls(official: Official, tmp_path: Path) -> None:
    """With a certificate and its key, it takes TLS with HTTP/1.1 and HTTP/2, and nothing else."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*form, serialization.NoEncryption()))
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    words = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with relaying(tmp_path, official.endpoint("http"), *words) as relay:
        for version in (HTTPVersion.HTTP1, HTTPVersion.HTTP2):
            session, at = new(), time.time_ns()
            with SyncHTTPTransport(
                http_version=version, tls_ca_cert=authority.cert_pem.bytes()
            ) as transport:
                assert call(relay.at("https"), session, transport, at) == "ok"
            check(official.find(session), session, agent.REPORTED, at)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        # tbot's own client offers both.
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(relay.connect(), server_hostname="localhost") as connection:
            assert connection.selected_alpn_protocol() == "h2"
        with pytest.raises((OSError, http.client.HTTPException)):
            relay.report()


def test_path_secret(tmp_path: Path) -> None:
    """With a secret, only the path with it takes reports, and the answer tells nothing of it."""
    secret = "a-Secret_of-16-or-more"
    (tmp_path / "secret").write_text(f"{secret}\n")
    words = ("--path-secret-file", str(tmp_path / "secret"))
    with (
        Standin(Answer()) as standin,
        relaying(tmp_path, standin.endpoint, *words) as relay,
    ):
        body = message(start(WHOLE))
        for path in (
            PATH,
            f"/{secret}x{PATH}",
            f"/x/{secret}{PATH}",
            f"/{secret}",
            "/",
            f"/{PATH}",
        ):
            assert relay.post(body, path=path) == (404, "", "")
        assert not standin.requests
        assert relay.post(body, path=f"/{secret}{PATH}") == (200, "", "")
        assert relay.get("/healthz") == (200, "ok")
        assert secret not in relay.said()


def test_no_path_secret(relay: Relay) -> None:
    """Without one, any other path is not found."""
    assert relay.post(message(start(WHOLE)), path=f"/x{PATH}") == (404, "", "")


def test_ipv6(tmp_path: Path) -> None:
    """It listens on IPv6 where it is told to."""
    with (
        Standin(Answer()) as standin,
        relaying(tmp_path, standin.endpoint, host="::1") as relay,
    ):
        session = new()
        assert agent.call_raw(relay.url, agent.request(session, oneshot=False)) == "ok"
        assert exported(standin) == [[session]]


DEEP = b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
BAD = "invalid_argument"


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "expected"),
    [
        (message(start(WHOLE), session=MARKER), PROTO, {}, (400, BAD, "distinct_id")),
        (message(None), PROTO, {}, (400, BAD, "event")),
        (message(field(6, -1)), PROTO, {}, (400, BAD, "start.destinations_other")),
        (MARKER.encode(), PROTO, {}, (400, BAD, "the body")),
        (document({"version": 18, "joinType": MARKER}), JSON, {}, (400, BAD, "the body")),
        (DEEP, JSON, {}, (400, BAD, "the body")),
        (DEEP * 2, JSON, {}, (429, "resource_exhausted", "message")),
        (bytes(MOST_BYTES + 1), PROTO, {}, (429, "resource_exhausted", "message")),
        (
            *(gzip.compress(bytes(10**8)), PROTO, {"Content_Encoding": "gzip"}),
            (429, "resource_exhausted", "message"),
        ),
        (b"", PROTO, {"Content_Encoding": "br"}, (501, "unimplemented", "")),
        (b"", MARKER, {}, (415, "", "")),
    ],
)
def test_refused(
    relay: Relay,
    body: bytes,
    content_type: str,
    headers: dict[str, str],
    expected: tuple[int, str, str],
) -> None:
    """What is no report is refused; the answer names the field, and neither repeats its value."""
    status, code, text = relay.post(body, content_type, **headers)
    assert (status, code) == expected[:2]
    assert text.startswith(expected[2])
    assert MARKER not in text + relay.said()


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        name: st.integers(0, 2**31 - 1) if isinstance(value, int) else TEXTS
        for name, value in WHOLE.items()
    },
)
REPORTS = st.builds(Report, st.uuids(version=4).map(str), st.integers(1, 2**63 - 1), VALUES)


@examples(200)
@given(st.lists(REPORTS, max_size=5, unique_by=lambda report: report.session_id))
def test_message(reports: list[Report]) -> None:
    """A batch's message is, to the byte, what the official encoder makes of its records."""
    batch = Batch(reports)
    assert len(batch) == len(reports) == len(batch[:])
    assert batch.message().SerializeToString() == encode_logs([*batch]).SerializeToString()


class _Message(Batch):
    """A batch that has a message, and no records."""

    def __getitem__(self, index: object) -> Any:
        raise AssertionError("a record was asked for")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_messages_are_exported(
    monkeypatch: pytest.MonkeyPatch, rotel: Rotel, protocol: str
) -> None:
    """The official exporters send a batch's own message, and any other records as ever."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", rotel.endpoint(protocol))
    module = f"{destination.MODULES[protocol]}._log_exporter"
    # So that it is undone.
    monkeypatch.setattr(f"{module}.encode_logs", encode_logs)
    answers = otlp.Answers()
    exporter = otlp.build(otlp.Arguments(), answers)
    lead_exporter_to_messages()
    lead_exporter_to_messages()
    own, other = new(), new()
    now = time.time_ns()
    assert otlp.send(exporter, answers, _Message([Report(own, now, WHOLE)])) is None
    assert otlp.send(exporter, answers, [*Batch([Report(other, now, WHOLE)])]) is None
    exporter.shutdown()  # type: ignore[no-untyped-call]
    for session in (own, other):
        assert "tbot.start" in rotel.find(session)


def test_records_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that has another encoder finds the records in a batch."""
    taken: list[ReadableLogRecord] = []

    class Exporter(LogRecordExporter):
        def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
            taken.extend(batch)
            return LogRecordExportResult.SUCCESS

        def shutdown(self) -> None:
            """Do nothing."""

        def force_flush(self, timeout_millis: int = 10_000) -> bool:
            return bool(timeout_millis)

    module = ModuleType("_log_exporter")
    name = f"{destination.MODULES['http/json']}._log_exporter"
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("tbot_otel.otlp.import_module", sys.modules.__getitem__)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    lead_exporter_to_messages()
    assert "encode_logs" not in vars(module)
    batch = Batch([Report(new(), time.time_ns(), WHOLE), Report(new(), time.time_ns(), {})])
    assert otlp.send(Exporter(), otlp.Answers(), batch) is None
    assert encode_logs(taken) == batch.message()


def test_group_commit(tmp_path: Path) -> None:
    """A lone call is exported at once, and those that come meanwhile together."""
    first, *others = sessions = [new() for _ in range(200)]
    with (
        Standin(Answer(delay=2)) as standin,
        relaying(tmp_path, standin.endpoint) as relay,
        meanwhile(lambda: relay.report(first)) as lone,
    ):
        eventually(lambda: bool(standin.requests))
        with meanwhile(*(partial(relay.report, session) for session in others)) as answers:
            pass
        assert {answer.result() for answer in lone + answers} == {(200, "")}
        exports = exported(standin)
        assert exports[0] == [first]
        # Of 200 on few cores, some may come too late for the second.
        assert len(exports) <= 4
        assert sorted(chain(*exports)) == sorted(sessions)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (Answer(400, delay=1), "the Collector answered 400"),
        (
            Answer(200, REJECTED.SerializeToString(), delay=1),
            "the Collector rejected 1 of the records sent",
        ),
        (Answer(200, b"hello", {"Content-Type": "text/plain"}, 1), "is no OTLP receiver"),
    ],
    ids=["refused", "partial success", "no receiver"],
)
def test_each_by_its_export(tmp_path: Path, bad: Answer, problem: str) -> None:
    """A call is answered by what became of its own export, and of no other."""
    with (
        Standin(bad, Answer()) as standin,
        relaying(tmp_path, standin.endpoint) as relay,
        meanwhile(lambda: relay.post(message(start(WHOLE)))) as first,
    ):
        eventually(lambda: bool(standin.requests))
        with meanwhile(*[relay.report] * 5) as others:
            assert [answer.result() for answer in others] == [(200, "")] * 5
        status, code, text = first[0].result()
        assert (status, code) == (503, "unavailable")
        assert problem in text


def test_partial_success_over_grpc(tmp_path: Path) -> None:
    """Over gRPC too, a report of which the Collector took only a part is not delivered."""
    more = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with (
        GrpcStandin(body=REJECTED.SerializeToString()) as standin,
        relaying(tmp_path, standin.endpoint, **more) as relay,
    ):
        status, code, text = relay.post(message(start(WHOLE)))
    assert (status, code) == (503, "unavailable")
    assert "rejected 1 of the records" in text


def test_too_late(tmp_path: Path) -> None:
    """A silent Collector keeps no call longer than tbot waits or says, nor the end of the relay."""
    begin = 0.0

    def seconds(**headers: str) -> tuple[tuple[int, str], float]:
        return relay.report(**headers), time.monotonic() - begin

    with (
        silent() as port,
        relaying(tmp_path, f"http://127.0.0.1:{port}") as relay,
        relay.connect() as idle,
    ):
        idle.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx".encode())
        begin = time.monotonic()
        with meanwhile(seconds, seconds, lambda: seconds(Connect_Timeout_Ms="500")) as answers:
            timed_out, took = answers[2].result()
            assert timed_out == (504, "deadline_exceeded")
            assert took < 7
            # In time for 15 seconds, which it is given.
            assert relay.stop() == 0
        for answer, took in (answers[0].result(), answers[1].result()):
            assert answer == (503, "unavailable")
            assert 7 < took < agent.WAIT


def test_gone_clients(tmp_path: Path) -> None:
    """Clients that go away in the middle of a call disturb no others, and leave their places."""
    body = message(start(WHOLE), session=new())
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTO}\r\nContent-Length: "
    whole = f"{head}{len(body)}\r\n\r\n".encode() + body
    with (
        Standin(Answer(delay=0.5)) as standin,
        relaying(
            tmp_path,
            standin.endpoint,
            first="from tbot_otel.relay import service; service.MOST_CALLS = 8",
        ) as relay,
    ):
        for sent in (whole, whole[:-3], whole[:20]):
            gone = [relay.connect() for _ in range(6)]
            for connection in gone:
                connection.sendall(sent)
            with meanwhile(relay.report, relay.report) as answers:
                for connection in gone:
                    connection.close()
            assert [answer.result() for answer in answers] == [(200, "")] * 2
        eventually(lambda: {relay.report() for _ in range(2)} == {(200, "")})


@pytest.mark.parametrize("timeout", ["9000", "300"])
def test_shed(tmp_path: Path, timeout: str) -> None:
    """What is over the limit is refused, while calls wait or the reports of those given up do."""
    first = "from tbot_otel.relay import service; service.MOST_CALLS = 4; service._LOOK_EVERY = 60"
    busy, late = (429, "resource_exhausted"), (504, "deadline_exceeded")
    with (
        Standin(Answer(delay=3), Answer()) as standin,
        relaying(tmp_path, standin.endpoint, first=first) as relay,
    ):
        report = partial(relay.report, Connect_Timeout_Ms=timeout)
        with meanwhile(relay.report) as lone:
            eventually(lambda: bool(standin.requests))
            for fits in ((3,), (1, 2, 3), (0,)) if timeout == "300" else ((3,),):
                with meanwhile(*[report] * 12) as calls:
                    eventually(lambda: [c.result() for c in calls if c.done()].count(busy) >= 9)
                    # At once: the first export is not yet answered.
                    assert len(standin.requests) <= 1
                answers = [call.result() for call in calls]
                fit = answers.count(late if timeout == "300" else (200, ""))
                assert fit in fits
                assert answers.count(busy) == 12 - fit
        assert lone[0].result() == (200, "")
        assert [relay.report() for _ in range(5)] == [(200, "")] * 5


@pytest.mark.parametrize(
    ("size", "limit"),
    # What does not say its length may have the most.
    [("Content-Length: 60000", 3 * 60_000), ("Transfer-Encoding: chunked", 3 * MOST_BYTES)],
)
def test_shed_bodies(tmp_path: Path, size: str, limit: int) -> None:
    """Bodies that do not come keep others out only while they are read; those that came do not."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTO}\r\n{size}\r\n\r\n"
    with (
        Standin(Answer(delay=1), Answer()) as standin,
        relaying(
            tmp_path,
            standin.endpoint,
            first=f"from tbot_otel.relay import service; service.MOST_CALLS_BYTES = {limit}",
        ) as relay,
        contextlib.ExitStack() as stack,
    ):
        large = message(start(WHOLE), session=new(), more=field(100, "x" * 50_000))

        def post(after: float) -> int:
            time.sleep(after)
            return relay.post(large)[0]

        with meanwhile(*[partial(post, n / 10) for n in range(6)]) as calls:
            pass
        assert {call.result() for call in calls} == {200}
        for _ in range(3):
            stack.enter_context(relay.connect()).sendall(head.encode())
        # With a report before the last of them, that one would be refused.
        time.sleep(0.5)
        eventually(lambda: relay.report() == (429, "resource_exhausted"))
        eventually(lambda: relay.report() == (200, ""))


def test_slow_clients(tmp_path: Path) -> None:
    """Slow heads and bodies are cut off, and neither they nor idle ones keep others out."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTO}\r\n"
    slow = {
        "head": head,
        "body": f"{head}Content-Length: 50\r\n\r\nx",
        "no body": f"{head}Content-Length: 50\r\n\r\n",
        "chunks": f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    }
    with (
        Standin(Answer()) as standin,
        relaying(tmp_path, standin.endpoint) as relay,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(300):
            stack.enter_context(relay.connect())
        connections = [stack.enter_context(relay.connect()) for _ in slow for _ in range(5)]
        for connection, sent in zip(connections, [*slow.values()] * 5, strict=True):
            connection.sendall(sent.encode())
        assert relay.report() == (200, "")
        left = dict(zip(connections, [*slow] * 5, strict=True))
        deadline = time.monotonic() + PATIENCE
        for connection in connections:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ConnectionError):
                # Cut off: at its end, or with an answer that is none of success.
                assert not connection.recv(1000).startswith(b"HTTP/1.1 2"), left[connection]
        assert relay.report() == (200, "")
        assert "Traceback" not in relay.said()


@pytest.mark.parametrize(
    "said", [b"", b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))]
)
def test_idle_clients(tmp_path: Path, said: bytes) -> None:
    """More connections that say nothing than there may be do not keep others out for long."""
    first = """
from tbot_otel.relay import server, service
server.MOST_CONNECTIONS = 50
service.IDLE = 2
"""
    with (
        Standin(Answer()) as standin,
        relaying(tmp_path, standin.endpoint, first=first) as relay,
        contextlib.ExitStack() as stack,
    ):
        (worker,) = relay.workers()
        descriptors = Path(f"/proc/{worker}/fd")
        assert relay.report() == (200, "")
        before = len([*descriptors.iterdir()])
        idle = [stack.enter_context(relay.connect()) for _ in range(60)]
        for connection in idle:
            connection.sendall(said)
        eventually(lambda: len([*descriptors.iterdir()]) >= before + 50)
        assert relay.report() == (200, "")
        for connection in idle:
            connection.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while connection.recv(1000):
                    """What it tells of itself."""
        # Nor does it keep what it looked at.
        eventually(lambda: len([*descriptors.iterdir()]) <= before)


def test_large_head(relay: Relay) -> None:
    """A head over 16 KiB is refused, wherever its bytes are."""
    for head in (f"GET /{'x' * 40_000} HTTP/1.1", f"GET / HTTP/1.1\r\nX: {'x' * 40_000}"):
        with relay.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(f"{head}\r\nHost: x\r\n\r\n".encode())
            assert not connection.recv(20).startswith((b"HTTP/1.1 2", b"HTTP/1.1 404"))
    assert relay.report() == (200, "")


METRICS = {
    "tbot_otel.relay.calls",
    "tbot_otel.relay.calls.in_flight",
    "tbot_otel.relay.export.size",
    "tbot_otel.relay.export.duration",
}


def test_privacy(tmp_path: Path) -> None:
    """Of who calls, and of what is refused, nothing is exported, printed or measured."""
    source = "127.0.0.77"
    sessions = [new() for _ in range(3)]
    with (
        Standin(Answer(400), Answer()) as standin,
        relaying(
            tmp_path,
            standin.endpoint,
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{standin.endpoint}/v1/metrics",
            OTEL_RESOURCE_ATTRIBUTES="host.name=relay.example",
        ) as relay,
    ):
        headers = {
            "User_Agent": MARKER,
            "Cookie": MARKER,
            "Forwarded": f"for={MARKER}",
            "X_Forwarded_For": source,
            "Referer": MARKER,
            "Traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01",
            "Baggage": f"x={MARKER}",
        }
        attributes = {**WHOLE, "tbot.join_type": MARKER, "tbot.helper": f"{MARKER}.example.com"}
        status = [
            relay.post(
                message(start(attributes), session=session), path=path, source=source, **headers
            )[0]
            for session in sessions
            for path in (f"{PATH}?x={MARKER}",)
        ]
        assert status == [503, 200, 200]
        bad = message(start(WHOLE), session=MARKER)
        assert relay.post(bad, source=source, **headers)[0] == 400
        assert relay.post(bad, path=f"/{MARKER}", source=source, **headers)[0] == 404
        assert relay.stop() == 0
        printed = relay.said()
    assert exported(standin) == [[session] for session in sessions]
    for who in (MARKER, source, "ab" * 16):
        assert who not in printed
        assert who not in repr(standin.requests)
    assert not any(session in printed for session in sessions)
    assert not any(
        b"relay.example" in request.body
        for request in standin.requests
        if request.path == "/v1/logs"
    )


def keys(point: NumberDataPoint | HistogramDataPoint) -> tuple[tuple[str, str | int], ...]:
    """The attributes of a point."""
    values = ((item.key, item.value) for item in point.attributes)
    return tuple((name, value.string_value or value.int_value) for name, value in values)


def test_metrics(tmp_path: Path) -> None:
    """With OTEL_METRICS_EXPORTER=otlp it counts and measures, by status and problem only."""
    with (
        Standin(Answer(400), Answer()) as standin,
        relaying(
            tmp_path,
            standin.endpoint,
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_METRIC_EXPORT_INTERVAL="600000",
        ) as relay,
    ):
        assert [relay.report()[0] for _ in range(4)] == [503, 200, 200, 200]
        assert relay.post(b"")[0] == 400
        assert relay.post(b"", "application/grpc")[0] != 200
        assert relay.get("/healthz")[0] == 200
        with relay.connect() as connection:
            connection.sendall(f"POST {PATH} HTTP/1.1\r\nContent-Length: 9\r\n\r\nx".encode())
        assert relay.stop() == 0
    sent = [
        ExportMetricsServiceRequest.FromString(request.body)
        for request in standin.requests
        if request.path == "/v1/metrics"
    ]
    found = [
        metric
        for request in sent[-1:]
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        if scope.scope.name == "tbot_otel"
        for metric in scope.metrics
    ]
    points: dict[str, dict[tuple[Any, ...], Any]] = {}
    for metric in found:
        values = points[metric.name] = {}
        for number in metric.sum.data_points:
            values[keys(number)] = number.as_int
        for histogram in metric.histogram.data_points:
            values[keys(histogram)] = (histogram.count, histogram.sum)
    assert set(points) == METRICS
    calls = points["tbot_otel.relay.calls"]
    assert {name for point in calls for name, _ in point} == {"http.response.status_code"}
    assert calls[("http.response.status_code", 200),] == 3
    assert calls[("http.response.status_code", 503),] == 1
    resource = sent[-1].resource_metrics[0].resource
    assert "service.instance.id" in {attribute.key for attribute in resource.attributes}
    # Whoever went away is in flight no more.
    assert points["tbot_otel.relay.calls.in_flight"] == {(): 0}
    size = points["tbot_otel.relay.export.size"]
    assert size == {(("error.type", "unavailable"),): (1, 1), (): (3, 3)}
    assert set(points["tbot_otel.relay.export.duration"]) == set(size)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_log(protocol: str, tmp_path: Path) -> None:
    """A change is a line, not each export; what stands in the variables is none."""
    standin: Standin | GrpcStandin
    if protocol == "grpc":
        standin = GrpcStandin(*["INVALID_ARGUMENT"] * 3, "OK")
        reason = "the Collector gave no answer of success (INVALID_ARGUMENT)"
    else:
        standin = Standin(*[Answer(400)] * 3, Answer())
        reason = "the Collector answered 400"
    with (
        standin,
        relaying(
            tmp_path,
            f"{standin.endpoint}/?{MARKER}",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_HEADERS=f"api-key {MARKER}",
        ) as relay,
    ):
        assert [relay.report()[0] for _ in range(5)] == [503, 503, 503, 200, 200]
        printed = [line for line in relay.said().splitlines() if not line.startswith("[INFO]")]
    assert printed == [
        f"tbot-otel relay: the Collector does not take what is exported: {reason}",
        "tbot-otel relay: the Collector takes what is exported",
    ]
    assert MARKER not in relay.said()


def test_ready(tmp_path: Path) -> None:
    """It is ready when the Collector takes what it exports, from the start and again."""
    port = free_port()
    more = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with relaying(tmp_path, f"http://127.0.0.1:{port}", **more) as relay:
        for _ in range(2):
            assert relay.get("/healthz") == (200, "ok")
            assert relay.get("/readyz")[0] == 503
            assert relay.report() == (503, "unavailable")
            with Rotel(tmp_path, port).running():
                assert relay.get("/readyz") == (200, "ok")
                assert relay.report() == (200, "")
            # The last export was delivered, and none has been since.
            assert relay.get("/readyz") == (200, "ok")
            assert relay.report() == (503, "unavailable")


def test_ready_is_shared(tmp_path: Path) -> None:
    """However many ask whether it is ready, a call does not wait for all of them."""
    with (
        Standin(Answer(delay=1)) as standin,
        relaying(tmp_path, standin.endpoint) as relay,
        meanwhile(*[lambda: relay.get("/readyz")] * 16) as answers,
    ):
        eventually(lambda: bool(standin.requests))
        assert relay.report() == (200, "")
        assert {answer.result() for answer in answers} == {(200, "ok")}
        assert len(standin.requests) < 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_stop(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped, it takes no new connection, answers what is in flight, and ends with 0."""
    with (
        Standin(Answer(delay=2)) as standin,
        relaying(tmp_path, standin.endpoint) as relay,
        meanwhile(relay.report) as first,
    ):
        eventually(lambda: bool(standin.requests))
        with meanwhile(*[relay.report] * 10) as calls:
            time.sleep(0.5)
            relay.process.send_signal(number)
            eventually(lambda: not listens(relay))
            assert relay.process.poll() is None
        assert {call.result() for call in [*first, *calls]} == {(200, "")}
        assert relay.process.wait(PATIENCE) == 0
        assert sum(map(len, exported(standin))) == 11


def listens(relay: Relay) -> bool:
    """Whether a new connection is taken."""
    try:
        with relay.connect():
            return True
    except ConnectionError:
        return False


def test_name(tmp_path: Path) -> None:
    """It listens on the address of a name."""
    with (
        Standin(Answer()) as standin,
        relaying(tmp_path, standin.endpoint, host="localhost") as relay,
    ):
        assert relay.report() == (200, "")


def test_many_ask(tmp_path: Path) -> None:
    """Of any number that ask whether it is ready, only so many wait for the answer."""
    first = "from tbot_otel.relay import service; service._MOST_ASKING = 2"
    with (
        Standin(Answer(delay=1)) as standin,
        relaying(tmp_path, standin.endpoint, first=first) as relay,
        meanwhile(*[lambda: relay.get("/readyz")] * 8) as answers,
    ):
        pass
    assert (
        sorted(answer.result() for answer in answers)
        == [(200, "ok")] * 2 + [(503, "too many ask")] * 6
    )


def test_workers(tmp_path: Path) -> None:
    """Several workers share the work, and one that is killed comes back."""
    with (
        Standin(Answer()) as standin,
        relaying(tmp_path, standin.endpoint, "--workers", "2") as relay,
    ):
        before = relay.workers()
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        eventually(lambda: len(relay.workers() - before) == 1 and len(relay.workers()) == 2)
        eventually(lambda: relay.said().count("Started worker") == 3)
        sessions = [new() for _ in range(20)]
        assert {relay.report(session) for session in sessions} == {(200, "")}
        assert sorted(chain(*exported(standin))) == sorted(sessions)


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        *(
            (["--listen", value], {}, "argument --listen: expected HOST:PORT")
            for value in ("", "8126", ":8126", "x:0", "x:65536", "::1:8126", f"{MARKER}:x", "[::1]")
        ),
        (["--listen", f"{MARKER}.invalid:8126"], {}, "--listen: "),
        (["--listen", "192.0.2.1:8126"], {}, "--listen: "),
        *(
            (["--workers", value], {}, "argument --workers: expected a number from 1 to 999")
            for value in ("0", "-1", "1000", "1.5", MARKER)
        ),
        (["--tls-cert", "x"], {}, "--tls-cert, --tls-key: expected both or neither"),
        (["--tls-key", "x"], {}, "--tls-cert, --tls-key: expected both or neither"),
        (["--tls-cert", MARKER, "--tls-key", MARKER], {}, "--tls-cert"),
        (["--tls-cert", "text", "--tls-key", "text"], {}, "--tls-cert"),
        (["--path-secret-file", MARKER], {}, "--path-secret-file: No such file or directory"),
        (["--path-secret-file", "."], {}, "--path-secret-file: Is a directory"),
        *(
            (["--path-secret-file", name], {}, "--path-secret-file: expected")
            for name in ("short", "text", "latin")
        ),
        ([f"--x={MARKER}"], {}, "unknown: --x"),
        ([MARKER], {}, "unknown: an argument"),
        ([], {"OTEL_SDK_DISABLED": "True"}, "OTEL_SDK_DISABLED: "),
        ([], {"OTEL_METRICS_EXPORTER": MARKER}, "OTEL_METRICS_EXPORTER: expected otlp or none"),
        ([], {"OTEL_EXPORTER_OTLP_PROTOCOL": MARKER}, "protocol: expected one of"),
        (
            *(
                [],
                {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_CERTIFICATE": MARKER},
            ),
            "protocol grpc: the exporter does not take",
        ),
        (
            *([], {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": MARKER}),
            "",
        ),
    ],
)
def test_wrong(tmp_path: Path, words: list[str], environ: dict[str, str], said: str) -> None:
    """What it cannot serve with is one line that names it and repeats no value, and status 2."""
    (tmp_path / "short").write_text("too-short")
    (tmp_path / "text").write_text(f"a secret with spaces, {MARKER}")
    (tmp_path / "latin").write_bytes(b"\xff" * 20)
    words = [str(tmp_path / w) if w in {"short", "text", "latin", "."} else w for w in words]
    if "--listen" not in words:
        words += ["--listen", f"127.0.0.1:{free_port()}"]
    done = run("-m", "tbot_otel", "relay", *words, timeout=8, **_path(), **ENDPOINT, **environ)
    assert done.returncode == 2, done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1), done.stderr
    assert done.stderr.startswith(f"tbot-otel relay: {said}")
    assert MARKER not in done.stderr


def _path() -> dict[str, str]:
    return {name: value for name, value in KEPT.items() if name == "PYTHONPATH"}


def test_port_in_use() -> None:
    """A port that another has is one line and status 2."""
    with silent() as port:
        listen = f"127.0.0.1:{port}"
        done = run("-m", "tbot_otel", "relay", "--listen", listen, timeout=8, **_path(), **ENDPOINT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


@pytest.mark.parametrize("missing", ["granian", "uvloop", "connectrpc"])
def test_missing_extra(missing: str) -> None:
    """Without the extra, it says how to get it."""
    listen = f"127.0.0.1:{free_port()}"
    code = f"import sys; sys.modules[{missing!r}] = None\n{MAIN}"
    done = run("-c", code, "relay", "--listen", listen, timeout=8, **_path(), **ENDPOINT)
    problem = "tbot-otel relay: it needs the extra: pip install 'tbot-otel[relay]'\n"
    assert (done.returncode, done.stderr) == (2, problem)


@contextlib.contextmanager
def reserved(port: int) -> Iterator[None]:
    """Keep a port from being a client's own while nobody listens on it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        yield


def written_at_once(collector: Official) -> Official:
    """Let it write to the same file again, without delay: what it acknowledged survives its end."""
    config = json.loads(collector._config.read_text())
    config["exporters"]["file"] = {"path": str(collector._file), "rotation": {"max_megabytes": 999}}
    collector._config.write_text(json.dumps(config))
    return collector


def kept_by(collector: Official) -> set[object]:
    """The sessions in the file of a Collector that was killed again and again."""
    kept: set[object] = set()
    text = collector._file.read_text().replace('{"resourceLogs"', '\n{"resourceLogs"')
    for line in text.splitlines():
        # A kill can come within a line, which was not acknowledged then, or before its end.
        with contextlib.suppress(json.JSONDecodeError):
            received = json.loads(line)["resourceLogs"]
            kept |= {plain(logs["resource"]["attributes"])["session.id"] for logs in received}
    return kept


def usage(pid: int) -> tuple[int, int]:
    """The memory of a process in bytes, and how many descriptors it has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len([*Path(f"/proc/{pid}/fd").iterdir()])


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_soak(protocol: str, official_binary: Path, tmp_path: Path) -> None:
    """While the Collector is killed again and again, it has whatever was acknowledged.

    None of the refused is there, and neither the relay's memory nor its descriptors grow.
    """
    collector = written_at_once(Official(official_binary, tmp_path))
    command = [str(official_binary), "--config", str(collector._config)]
    log, ports = tmp_path / "collector.log", (collector.http_port, collector.grpc_port)
    taken: list[str] = []
    refused: list[str] = []
    codes: set[int] = set()
    pauses = cycle((2, 0.1, 0.5))
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            session = new()
            status = relay.report(session)[0]
            codes.add(status)
            if status == 200:
                taken.append(session)
            bad = new()
            assert relay.post(message(field(6, -1), session=bad))[0] == 400
            refused.append(bad)

    with (
        reserved(ports[0]),
        reserved(ports[1]),
        relaying(
            tmp_path,
            collector.endpoint(protocol),
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        ) as relay,
        meanwhile(*[client] * 8) as clients,
    ):
        try:
            (worker,) = relay.workers()
            begin = time.monotonic()
            seconds = 300 if LONG else 8
            used = (0, 0)
            while not stop.is_set():
                if not used[0] and time.monotonic() > begin + seconds / 4:
                    used = usage(worker)
                with running(command, log, *ports) as process:
                    time.sleep(random.uniform(0.2, 2))  # noqa: S311 - no secret
                    if time.monotonic() > begin + seconds:
                        # A Collector that stays is soon found.
                        before = len(taken)
                        eventually(lambda: len(taken) > before)  # noqa: B023 - called at once
                        # With a Collector, so that each has its answer soon.
                        stop.set()
                        wait(clients)
                    process.kill()
                    process.wait()
                # Longer than an export may take, and then not.
                time.sleep(next(pauses))
            memory, descriptors = usage(worker)
            assert memory - used[0] < 16 * 2**20
            # Those of the clients and of the Collector's are as many as ever.
            assert descriptors - used[1] < 16
        finally:
            stop.set()
    for finished in clients:
        finished.result()
    kept = kept_by(collector)
    assert taken
    assert codes == {200, 503}
    assert not {*taken} - kept
    assert not {*refused} & kept
