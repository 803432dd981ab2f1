"""Each protocol into real Collectors, and everything that can be asked of its official exporter."""

import base64
import contextlib
import gzip
import json
import os
import platform
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc
import pytest
import trustme
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, SimpleLogRecordProcessor

from collectors import Answer, Official, Request, Rotel, Standin, free_port, plain, run
from tbot_otel import (
    ExporterConfigurationError,
    Outcome,
    StartEvent,
    Status,
    TbotLogExporter,
    destination,
    record_start,
)

START = """
import json, sys
from tbot_otel import StartEvent, record_start
session = record_start(StartEvent(**json.loads(sys.argv[1])))
outcome = session.flush(15)
print(json.dumps({
    "id": session.id,
    "started": session.started,
    "status": outcome.status.name,
    "reason": outcome.reason,
}))
"""

LEAST: dict[str, Any] = {"run_mode": "daemon", "version": "18.3.0"}
FULL: dict[str, Any] = {
    "run_mode": "one-shot",
    "version": "17.0.0-rc.1",
    "join_type": "github",
    "helper": "gha:teleport-actions/auth",
    "helper_version": "v1.2.0",
    "destinations_other": 1,
    "destinations_database": 2,
    "destinations_kubernetes": 3,
    "destinations_application": 2**31 - 1,
}
ABSENT = {
    "join_type": "",
    "destinations_other": 0,
    "destinations_database": 0,
    "destinations_kubernetes": 0,
    "destinations_application": 0,
}
# What must not get into the Resource.
IDENTIFYING = {
    "OTEL_RESOURCE_ATTRIBUTES": (
        "session.id=00000000-0000-4000-8000-000000000000,host.name=db1,service.instance.id=7,"
        "service.name=payroll,os.type=windows,telemetry.sdk.name=other"
    ),
    "OTEL_SERVICE_NAME": "payroll",
}
TELLS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "least": (LEAST, {}),
    "full": (FULL, IDENTIFYING),
}


def _installed(protocol: str) -> bool:
    try:
        destination.check(protocol)
    except ExporterConfigurationError:
        return False
    return True


PROTOCOLS = [protocol for protocol in destination.PACKAGES if _installed(protocol)]
# rotel refuses the empty body that the official JSON exporter writes.
ROTEL_PROTOCOLS = [protocol for protocol in PROTOCOLS if protocol != "http/json"]
HTTP_PROTOCOLS = [protocol for protocol in PROTOCOLS if protocol != "grpc"]


@pytest.fixture(autouse=True)
def no_other_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the CAs that the machine names for every HTTP client out of the tests."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


class Started(NamedTuple):
    """What a process says of the start that it recorded."""

    id: str
    started: int
    status: str
    reason: str
    stderr: str


def start(fields: dict[str, Any] = LEAST, /, **environ: str) -> Started:
    """Record a start in a process of its own."""
    environ = {"TELEPORT_ANONYMOUS_TELEMETRY": "1", **environ}
    done = run("-c", START, json.dumps(fields), timeout=60, **environ)
    assert done.returncode == 0, done.stderr
    return Started(**json.loads(done.stdout), stderr=done.stderr)


def send(**arguments: Any) -> Outcome:
    """Record a start through an exporter with these arguments, in a pipeline of its own."""
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter(**arguments)))
    outcome = record_start(StartEvent(**LEAST), logger_provider=provider).flush(15)
    provider.shutdown()
    return outcome


def logs_url(endpoint: str, protocol: str) -> str:
    """The endpoint as an argument or ``LOGS_`` variable takes it: over HTTP with its path."""
    return endpoint if protocol == "grpc" else f"{endpoint}/v1/logs"


class GrpcStandin:
    """A gRPC server that gives the status codes that it was told, the last one again and again."""

    def __init__(self, *codes: str, credentials: object = None, body: bytes = b"") -> None:
        self.requests: list[Request] = []
        remaining = list(codes or ["OK"])
        lock = threading.Lock()

        def answer(request: bytes, context: Any) -> bytes:
            with lock:
                self.requests.append(Request("", dict(context.invocation_metadata()), request))
                code = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if code != "OK":
                context.abort(grpc.StatusCode[code], "as it was told")
            return body

        # With no serializer, a message is its bytes.
        handlers = {"Export": grpc.unary_unary_rpc_method_handler(answer)}
        service = "opentelemetry.proto.collector.logs.v1.LogsService"
        self._server = grpc.server(
            ThreadPoolExecutor(2),
            handlers=[grpc.method_handlers_generic_handler(service, handlers)],
        )
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
            self.endpoint = f"http://127.0.0.1:{port}"
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
            self.endpoint = f"https://localhost:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(10)


def standin(protocol: str) -> Standin | GrpcStandin:
    """A stand-in that takes everything."""
    return GrpcStandin() if protocol == "grpc" else Standin(Answer())


@contextlib.contextmanager
def tapped(endpoint: str) -> Iterator[tuple[str, list[bytearray]]]:
    """An endpoint that forwards to another one, and what was said to it in each connection."""
    host, port = endpoint.removeprefix("http://").split(":")
    said: list[bytearray] = []

    def pump(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                copy += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            said.append(bytearray())
            connection = said[-1]
            with socket.create_connection((host, int(port))) as upstream:
                back = threading.Thread(target=pump, args=(upstream, self.request, bytearray()))
                back.start()
                pump(self.request, upstream, connection)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", said
        finally:
            server.shutdown()


def resource_of(session: str) -> dict[str, object]:
    """All that the Resource of a session on this machine may carry."""
    machine = platform.machine().lower()
    return {
        "service.name": "tbot",
        "session.id": session,
        "os.type": platform.system().lower(),
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": version("opentelemetry-sdk"),
    }


def attributes_of(fields: dict[str, Any]) -> dict[str, object]:
    """The attributes of a start."""
    return {f"tbot.{name}": value for name, value in (ABSENT | fields).items()}


@pytest.mark.parametrize("tell", TELLS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_official_collector(protocol: str, tell: str, official: Official) -> None:
    """A start arrives as the design's table says, and nothing else does."""
    fields, environ = TELLS[tell]
    before = time.time_ns()
    sent = start(
        fields,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=official.endpoint(protocol),
        **environ,
    )
    assert (sent.status, sent.stderr) == ("DELIVERED", "")
    received = official.find(sent.id)
    (record,) = received["scopeLogs"][0]["logRecords"]
    observed = int(record["observedTimeUnixNano"])
    assert before <= sent.started <= observed <= time.time_ns()
    assert received == {
        "resource": {"attributes": received["resource"]["attributes"]},
        "scopeLogs": [
            {
                "scope": {"name": "tbot_otel", "version": version("tbot-otel")},
                "logRecords": [
                    {
                        "timeUnixNano": str(sent.started),
                        "observedTimeUnixNano": str(observed),
                        "severityNumber": 9,
                        "severityText": "INFO",
                        "eventName": "tbot.start",
                        # The Collector writes an absent body so.
                        "body": {},
                        "attributes": record["attributes"],
                    }
                ],
            }
        ],
    }
    assert unique(received["resource"]["attributes"]) == resource_of(sent.id)
    assert unique(record["attributes"]) == attributes_of(fields)


def unique(attributes: list[dict[str, Any]]) -> dict[str, object]:
    """OTLP/JSON's attributes as a dict, none of them twice."""
    result = plain(attributes)
    assert len(result) == len(attributes)
    return result


@pytest.mark.parametrize("tell", TELLS)
@pytest.mark.parametrize("protocol", ROTEL_PROTOCOLS)
def test_rotel(protocol: str, tell: str, rotel: Rotel) -> None:
    """The same arrives in a Collector of another make."""
    fields, environ = TELLS[tell]
    sent = start(
        fields,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=rotel.endpoint(protocol),
        **environ,
    )
    assert (sent.status, sent.stderr) == ("DELIVERED", "")
    lines = [line.strip() for line in rotel.find(sent.id).splitlines()]
    expected = resource_of(sent.id) | attributes_of(fields)
    assert sorted(line for line in lines if line.startswith("->")) == sorted(
        f"-> {name}: {type(value).__name__.title()}({value})" for name, value in expected.items()
    )
    assert {
        f"InstrumentationScope tbot_otel {version('tbot-otel')}",
        f"Timestamp: {sent.started}",
        "SeverityText: INFO",
        "SeverityNumber: SEVERITY_NUMBER_INFO(9)",
        "EventName: tbot.start",
        "Body: Empty",
        "Trace ID       :",
        "Span ID        :",
        "Flags: 0",
    } <= set(lines)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_compression_by_variable(protocol: str, compression: str, official: Official) -> None:
    """A Collector gets a compressed record whole, and the wire does not show its text."""
    # The gRPC exporter knows no variable's value but gzip.
    variable = {"OTEL_EXPORTER_OTLP_COMPRESSION": compression} if compression != "none" else {}
    with tapped(official.endpoint(protocol)) as (endpoint, said):
        sent = start(
            FULL,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            **variable,
        )
    assert sent.status == "DELIVERED"
    (scope,) = official.find(sent.id)["scopeLogs"]
    assert plain(scope["logRecords"][0]["attributes"]) == attributes_of(FULL)
    assert (b"tbot.helper_version" in b"".join(said)) == (compression == "none")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_by_variable(protocol: str) -> None:
    """Headers reach the Collector, decoded."""
    with standin(protocol) as collector:
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20x,X-Tenant=blue",
        )
    assert sent.status == "DELIVERED"
    (request,) = collector.requests
    assert request.headers["authorization"] == "Bearer x"
    assert request.headers["x-tenant"] == "blue"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_logs_variables_win(protocol: str) -> None:
    """The ``LOGS_`` form of a variable wins over the general one."""
    with standin(protocol) as collector:
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL="http/thrift",
            OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=logs_url(collector.endpoint, protocol),
            OTEL_EXPORTER_OTLP_HEADERS="x-form=general",
            OTEL_EXPORTER_OTLP_LOGS_HEADERS="x-form=logs",
            OTEL_EXPORTER_OTLP_TIMEOUT="0.000001",
            OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="10",
        )
    assert sent.status == "DELIVERED"
    (request,) = collector.requests
    assert request.headers["x-form"] == "logs"


@pytest.mark.parametrize("protocol", HTTP_PROTOCOLS)
def test_the_logs_compression_wins(protocol: str) -> None:
    """So does the ``LOGS_`` form of the compression, of which gRPC's exporter knows one value."""
    with Standin(Answer()) as collector:
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_COMPRESSION="deflate",
            OTEL_EXPORTER_OTLP_LOGS_COMPRESSION="gzip",
        )
    assert sent.status == "DELIVERED"
    (request,) = collector.requests
    assert request.headers["content-encoding"] == "gzip"
    assert b"tbot.start" in gzip.decompress(request.body)


class Secured(NamedTuple):
    """Official Collectors with certificates of a private CA, and the files to reach them."""

    files: dict[str, str]
    collectors: dict[str, Official]


@pytest.fixture(scope="module")
def secured(official_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A Collector that takes every client, and one that asks for a certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("client.invalid")
    files = {name: str(folder / f"{name}.pem") for name in ("ca_file", "key_file", "cert_file")}
    authority.cert_pem.write_to_path(files["ca_file"])
    client.private_key_pem.write_to_path(files["key_file"])
    client.cert_chain_pems[0].write_to_path(files["cert_file"])
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    own = {"cert_file": str(folder / "server.pem"), "key_file": str(folder / "server.pem")}
    with contextlib.ExitStack() as stack:
        collectors = {}
        for name, tls in {
            "any client": own,
            "known clients": own | {"client_ca_file": files["ca_file"]},
        }.items():
            collector = Official(official_binary, tmp_path_factory.mktemp("secured"), tls)
            collectors[name] = stack.enter_context(collector.running())
        yield Secured(files, collectors)


TLS_VARIABLES = {
    "ca_file": "CERTIFICATE",
    "key_file": "CLIENT_KEY",
    "cert_file": "CLIENT_CERTIFICATE",
}
CLIENT = ("ca_file", "key_file", "cert_file")
TRUSTED = [("any client", ("ca_file",)), ("known clients", CLIENT)]
NOT_TRUSTED: list[tuple[str, tuple[str, ...]]] = [
    ("any client", ()),
    ("known clients", ("ca_file",)),
]


@pytest.mark.parametrize("form", ["", "LOGS_"])
@pytest.mark.parametrize(("name", "files"), TRUSTED)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_by_variable(
    protocol: str, name: str, files: Sequence[str], form: str, secured: Secured
) -> None:
    """A private CA and a client's certificate come from either form of their variables."""
    sent = start(
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=secured.collectors[name].endpoint(protocol),
        **{
            f"OTEL_EXPORTER_OTLP_{form}{TLS_VARIABLES[file]}": secured.files[file] for file in files
        },
    )
    assert (sent.status, sent.stderr) == ("DELIVERED", "")
    assert secured.collectors[name].find(sent.id)


@pytest.mark.parametrize(("name", "files"), NOT_TRUSTED)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_trust(protocol: str, name: str, files: Sequence[str], secured: Secured) -> None:
    """Nothing is delivered to a Collector that is not trusted, or that does not trust us."""
    sent = start(
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=secured.collectors[name].endpoint(protocol),
        OTEL_EXPORTER_OTLP_TIMEOUT="0.5",
        **{f"OTEL_EXPORTER_OTLP_{TLS_VARIABLES[file]}": secured.files[file] for file in files},
    )
    assert sent.status == "FAILED"
    assert sent.reason
    assert sent.id not in str(secured.collectors[name].resources())


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(("name", "files"), TRUSTED)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_by_argument(protocol: str, name: str, files: Sequence[str], secured: Secured) -> None:
    """The same files are taken from the argument."""
    outcome = send(
        protocol=protocol,
        endpoint=logs_url(secured.collectors[name].endpoint(protocol), protocol),
        tls={file: secured.files[file] for file in files},
    )
    assert outcome.status is Status.DELIVERED, outcome


SEND = """
import json, sys
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from tbot_otel import StartEvent, TbotLogExporter, record_start
provider = LoggerProvider()
exporter = TbotLogExporter(**json.loads(sys.argv[1]))
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
event = StartEvent(run_mode="daemon", version="18.3.0")
print(record_start(event, logger_provider=provider).flush(15).status.name)
"""

# What is in place of a file: nothing, an empty file, or none that exists.
HALVES: dict[str, dict[str, str | None]] = {
    "no key": {"key_file": None},
    "no certificate": {"cert_file": None},
    "an empty key": {"key_file": os.devnull},
    "a missing key": {"key_file": "missing.pem"},
}


@pytest.mark.parametrize("by", ["variable", "argument"])
@pytest.mark.parametrize("half", HALVES)
def test_half_a_client_certificate(half: str, by: str, secured: Secured) -> None:
    """Half of a client's certificate, at which gRPC aborts, costs the record and no more."""
    endpoint = secured.collectors["known clients"].endpoint("grpc")
    files = {name: file for name, file in {**secured.files, **HALVES[half]}.items() if file}
    if by == "variable":
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            **{f"OTEL_EXPORTER_OTLP_{TLS_VARIABLES[name]}": files[name] for name in files},
        )
        assert sent.status == "FAILED"
    else:
        arguments = {"protocol": "grpc", "endpoint": endpoint, "tls": files}
        done = run("-c", SEND, json.dumps(arguments), TELEPORT_ANONYMOUS_TELEMETRY="1")
        assert (done.returncode, done.stdout) == (0, "FAILED\n"), done.stderr


HEADERS: dict[str, dict[str, Any]] = {
    "list": {"headers": [{"name": "X-Tenant", "value": "blue"}, {"name": "x-none", "value": None}]},
    "mapping": {"headers": {"X-Tenant": "blue", "x-none": ""}},
    "text": {"headers_list": "X-Tenant=blue, x-none="},
    "both": {
        "headers": [{"name": "x-tenant", "value": "blue"}],
        "headers_list": "X-Tenant=red,x-none=",
    },
}


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("protocol", HTTP_PROTOCOLS)
def test_the_named_ca_wins(
    protocol: str, secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA that is named for the export wins over one that is named for every HTTP client."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secured.files["cert_file"])
    outcome = send(
        protocol=protocol,
        endpoint=f"{secured.collectors['any client'].endpoint(protocol)}/v1/logs",
        timeout=2_000,
        tls={"ca_file": secured.files["ca_file"]},
    )
    assert outcome.status is Status.DELIVERED, outcome


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("shape", HEADERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_by_argument(protocol: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are taken in each shape of a declarative file, and win over their variable."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=variable")
    with standin(protocol) as collector:
        endpoint = logs_url(collector.endpoint, protocol)
        outcome = send(protocol=protocol, endpoint=endpoint, **HEADERS[shape])
    assert outcome.status is Status.DELIVERED, outcome
    (request,) = collector.requests
    assert request.headers["x-tenant"] == "blue"
    assert request.headers["x-none"] == ""


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arguments_win(protocol: str, monkeypatch: pytest.MonkeyPatch, secured: Secured) -> None:
    """Every argument wins over its variable."""
    for name, value in {
        "PROTOCOL": "http/thrift",
        "ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "COMPRESSION": "gzip",
        "TIMEOUT": "0.000001",
        "CERTIFICATE": secured.files["cert_file"],
    }.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_LOGS_{name}", value)
    collector = secured.collectors["any client"]
    outcome = send(
        protocol=protocol,
        endpoint=logs_url(collector.endpoint(protocol), protocol),
        compression="none",
        timeout=10_000,
        tls={"ca_file": secured.files["ca_file"]},
    )
    assert outcome.status is Status.DELIVERED, outcome


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_compression_by_argument(
    protocol: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is compressed as the argument says, whatever the variable does."""
    if compression == "none":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    # The official Collector takes no deflate over gRPC.
    with standin(protocol) as collector, tapped(collector.endpoint) as (endpoint, said):
        outcome = send(
            protocol=protocol, endpoint=logs_url(endpoint, protocol), compression=compression
        )
    assert outcome.status is Status.DELIVERED, outcome
    assert (b"tbot.join_type" in b"".join(said)) == (compression == "none")


@pytest.mark.usefixtures("opted_in")
def test_grpc_insecure_by_argument() -> None:
    """Over gRPC, an endpoint with no scheme is reached in plain text where the argument says so."""
    with GrpcStandin() as collector:
        outcome = send(
            protocol="grpc",
            endpoint=collector.endpoint.removeprefix("http://"),
            tls={"insecure": True},
        )
    assert outcome.status is Status.DELIVERED, outcome


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("protocol", HTTP_PROTOCOLS)
def test_timeout_by_argument(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument is in milliseconds, as in a declarative file, where the variable is not."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
    with Standin(Answer(delay=1)) as collector:
        outcome = send(protocol=protocol, endpoint=f"{collector.endpoint}/v1/logs", timeout=300)
    assert outcome.status is Status.FAILED


@pytest.mark.usefixtures("opted_in")
def test_unknown_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """An argument that no exporter has is logged by its name, and ignored."""
    with Standin(Answer()) as collector:
        outcome = send(endpoint=f"{collector.endpoint}/v1/logs", retries="s3cret")
    assert outcome.status is Status.DELIVERED, outcome
    assert messages(caplog) == ["TbotLogExporter: the argument retries is unknown, and ignored"]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we logged."""
    return [record.getMessage() for record in caplog.records if record.name == "tbot_otel"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"protocol": 5}, "protocol: expected text"),
    ({"protocol": "HTTP/PROTOBUF"}, "protocol: expected one of http/protobuf, grpc, http/json"),
    ({"endpoint": ["http://s3cret"]}, "endpoint: expected text"),
    ({"headers": "a=s3cret"}, "headers: expected pairs of name and value"),
    ({"headers": [{"name": "a"}]}, "headers: expected pairs of name and value"),
    ({"headers": [{"name": 1, "value": "s3cret"}]}, "headers: expected pairs of name and value"),
    ({"headers": {"a": 7}}, "headers: expected pairs of name and value"),
    ({"headers": 7}, "headers: expected pairs of name and value"),
    ({"headers_list": ["a=s3cret"]}, "headers_list: expected text"),
    ({"headers_list": "s3cret"}, "headers: expected pairs of name and value"),
    ({"compression": "s3cret"}, "compression: expected none, gzip or deflate"),
    ({"compression": 1}, "compression: expected text"),
    ({"timeout": "s3cret"}, "timeout: expected milliseconds"),
    ({"timeout": True}, "timeout: expected milliseconds"),
    ({"timeout": -1}, "timeout: expected milliseconds"),
    ({"tls": "s3cret"}, "tls: expected a mapping"),
    ({"tls": {"ca_file": 5}}, "tls.ca_file: expected text"),
    ({"tls": {"insecure": "s3cret"}}, "tls: expected true or false for insecure"),
    # A name that is mistaken would leave the Collector unchecked.
    ({"tls": {"ca_flie": "x"}}, "tls: expected only insecure, ca_file, cert_file, key_file"),
    ({"timeout": float("inf")}, "timeout: expected milliseconds"),
    ({"exporter": "s3cret"}, "exporter: expected a LogRecordExporter"),
    ({"exporter": ConsoleLogRecordExporter(), "timeout": "1"}, "timeout: expected milliseconds"),
]


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("arguments", "problem"), WRONG, ids=["+".join(arguments) for arguments, _ in WRONG]
)
def test_wrong_arguments(
    arguments: dict[str, Any],
    problem: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An argument of a wrong shape is logged once; nothing is sent or raised, and no value told."""
    with Standin(Answer()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        provider = LoggerProvider()
        provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter(**arguments)))
        for _ in range(2):
            outcome = record_start(StartEvent(**LEAST), logger_provider=provider).flush(15)
            assert (outcome.status, outcome.reason) == (Status.FAILED, problem)
        provider.shutdown()
    assert collector.requests == []
    assert messages(caplog) == [f"TbotLogExporter sends nothing: {problem}"]
    assert "s3cret" not in caplog.text


NOT_USABLE = {
    "http/thrift": "protocol: expected one of http/protobuf, grpc, http/json",
    **{
        protocol: f"protocol {protocol}: the package {package} is not installed"
        for protocol, package in destination.PACKAGES.items()
        if protocol not in PROTOCOLS
    },
}


@pytest.mark.parametrize("protocol", NOT_USABLE)
def test_not_usable_protocols(protocol: str) -> None:
    """A protocol that cannot be used is one line that says what can be; nothing is sent."""
    with Standin(Answer()) as collector:
        sent = start(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
    assert (sent.status, sent.reason) == ("FAILED", NOT_USABLE[protocol])
    assert sent.stderr == f"TbotLogExporter sends nothing: {NOT_USABLE[protocol]}\n"
    assert collector.requests == []


@pytest.mark.usefixtures("opted_in")
def test_login_of_the_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The login that an endpoint names is sent, and wins over a person's own."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login alice password wonderland\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Standin(Answer()) as collector:
        url = collector.endpoint.replace("://", "://team:open%20sesame@")
        outcome = send(endpoint=f"{url}/v1/logs")
    assert outcome.status is Status.DELIVERED
    (request,) = collector.requests
    login = base64.b64encode(b"team:open sesame").decode()
    assert request.headers["authorization"] == f"Basic {login}"
