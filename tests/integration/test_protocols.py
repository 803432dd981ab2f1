"""Each protocol to real Collectors, with all arguments and variables of its official exporter."""

import base64
import contextlib
import gzip
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, SimpleLogRecordProcessor

from support.cases import EMPTY_ATTRIBUTES
from support.collectors import Official, ReceivedStart, Rotel
from support.otlp import PROTOCOLS, attribute_values, expected_resource
from support.processes import WAIT_SECONDS, free_port, run_python
from support.standins import GRPCStandin, HTTPStandin, Response, accepting_standin, recording_proxy
from support.starts import MINIMAL_EVENT, RECORD_START_SCRIPT, record_start_in_process
from tbot_otel import Outcome, StartEvent, Status, TbotLogExporter, record_start
from tbot_otel.otlp.environment import EXPORTER_MODULES
from tbot_otel.registry import SCHEMA_URL

FULL_EVENT: dict[str, Any] = {
    "run_mode": "one-shot",
    "version": "17.0.0-rc.1",
    "join_type": "github",
    "helper": "gha:teleport-actions/auth",
    "helper_version": "2.1.2",
    "destinations_other": 1,
    "destinations_database": 2,
    "destinations_kubernetes": 3,
    "destinations_application": 999,
}
# Attributes that must not get into the Resource.
IDENTIFYING_VARIABLES = {
    "OTEL_RESOURCE_ATTRIBUTES": (
        "session.id=00000000-0000-4000-8000-000000000000,host.name=db1,service.instance.id=7,"
        "service.name=payroll,os.type=windows,telemetry.sdk.name=other"
    ),
    "OTEL_SERVICE_NAME": "payroll",
}
EVENTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "minimal": (MINIMAL_EVENT, {}),
    "full": (FULL_EVENT, IDENTIFYING_VARIABLES),
}


@pytest.fixture(autouse=True)
def default_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's settings of certificate authorities."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def export_start(**arguments: Any) -> Outcome:
    """Record a start in a pipeline of its own, with an exporter that has these arguments."""
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter(**arguments)))
    outcome = record_start(StartEvent(**MINIMAL_EVENT), logger_provider=provider).flush(15)
    provider.shutdown()
    return outcome


class Sent(NamedTuple):
    """A start that this process has sent."""

    id: str
    status: str
    reason: str


RecordWith = Callable[..., Sent]


@pytest.fixture
def record_with(monkeypatch: pytest.MonkeyPatch, opted_in: None) -> RecordWith:  # noqa: ARG001
    """Return a function that records a start with these variables."""

    def record(fields: dict[str, Any] = MINIMAL_EVENT, /, **environ: str) -> Sent:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        session = record_start(StartEvent(**fields))
        outcome = session.flush(WAIT_SECONDS)
        return Sent(session.id, outcome.status.name, outcome.reason)

    return record


def logs_url(endpoint: str, protocol: str) -> str:
    """The endpoint for an argument or a ``LOGS_`` variable: over HTTP with its path."""
    return endpoint if protocol == "grpc" else f"{endpoint}/v1/logs"


def expected_attributes(fields: dict[str, Any]) -> dict[str, object]:
    """The attributes of a start."""
    return EMPTY_ATTRIBUTES | {f"tbot.{name}": value for name, value in fields.items()}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_official_collector(protocol: str, event: str, official: Official) -> None:
    """A start arrives with the documented fields, and nothing else."""
    fields, environ = EVENTS[event]
    before = time.time_ns()
    sent = record_start_in_process(
        fields,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=official.endpoint(protocol),
        **environ,
    )
    assert (sent.status, sent.stderr) == ("DELIVERED", "")
    received = official.find_json(sent.id)
    (record,) = received["scopeLogs"][0]["logRecords"]
    assert before - 60 * 10**9 < sent.started <= time.time_ns()
    assert received == {
        "resource": {"attributes": received["resource"]["attributes"]},
        "schemaUrl": SCHEMA_URL,
        "scopeLogs": [
            {
                "scope": {"name": "tbot_otel", "version": version("tbot-otel")},
                "schemaUrl": SCHEMA_URL,
                "logRecords": [
                    {
                        "timeUnixNano": str(sent.started),
                        "observedTimeUnixNano": str(sent.started),
                        "severityNumber": 9,
                        "severityText": "INFO",
                        "eventName": "tbot.start",
                        # The Collector writes an absent body as {}.
                        "body": {},
                        "attributes": record["attributes"],
                    }
                ],
            }
        ],
    }
    assert unique(received["resource"]["attributes"]) == expected_resource(sent.id)
    assert unique(record["attributes"]) == expected_attributes(fields)


def unique(attributes: list[dict[str, Any]]) -> dict[str, object]:
    """OTLP/JSON attributes as a dict, none of them twice."""
    result = attribute_values(attributes)
    assert len(result) == len(attributes)
    return result


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rotel(protocol: str, event: str, rotel: Rotel) -> None:
    """A start arrives in rotel with the same fields."""
    fields, environ = EVENTS[event]
    sent = record_start_in_process(
        fields,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=rotel.endpoint(protocol),
        **environ,
    )
    assert (sent.status, sent.stderr) == ("DELIVERED", "")
    assert rotel.find(sent.id) == ReceivedStart(
        resource=expected_resource(sent.id),
        scope=f"tbot_otel {version('tbot-otel')}",
        event_name="tbot.start",
        timestamp=sent.started,
        severity="INFO",
        body=None,
        attributes=expected_attributes(fields),
    )
    assert {
        "SeverityNumber: SEVERITY_NUMBER_INFO(9)",
        "Trace ID       :",
        "Span ID        :",
        "Flags: 0",
    } <= {line.strip() for line in rotel.find_text(sent.id).splitlines()}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_compression_by_variable(
    protocol: str, compression: str, official: Official, record_with: RecordWith
) -> None:
    """The Collector receives a compressed record, and its text is not on the wire."""
    # The gRPC exporter rejects every value of the variable except gzip.
    variable = {"OTEL_EXPORTER_OTLP_COMPRESSION": compression} if compression != "none" else {}
    with recording_proxy(official.endpoint(protocol)) as (endpoint, sent_bytes):
        sent = record_with(
            FULL_EVENT,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            **variable,
        )
    assert sent.status == "DELIVERED"
    (scope,) = official.find_json(sent.id)["scopeLogs"]
    assert attribute_values(scope["logRecords"][0]["attributes"]) == expected_attributes(FULL_EVENT)
    assert (b"tbot.helper_version" in b"".join(sent_bytes)) == (compression == "none")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_by_variable(protocol: str, record_with: RecordWith) -> None:
    """The Collector receives the headers, decoded."""
    with accepting_standin(protocol) as collector:
        sent = record_with(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20x,X-Tenant=blue",
        )
    assert sent.status == "DELIVERED"
    (request,) = collector.requests
    assert request.headers["authorization"] == "Bearer x"
    assert request.headers["x-tenant"] == "blue"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_logs_variables_win(protocol: str, record_with: RecordWith) -> None:
    """The ``LOGS_`` form of a variable wins over the general one."""
    with accepting_standin(protocol) as collector:
        sent = record_with(
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


def test_logs_compression_wins(record_with: RecordWith) -> None:
    """The ``LOGS_`` form of the compression wins. Over gRPC there is only one value."""
    with HTTPStandin(Response()) as collector:
        sent = record_with(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_COMPRESSION="deflate",
            OTEL_EXPORTER_OTLP_LOGS_COMPRESSION="gzip",
        )
    assert sent.status == "DELIVERED"
    (request,) = collector.requests
    assert request.headers["content-encoding"] == "gzip"
    assert b"tbot.start" in gzip.decompress(request.body)


class TLSCollectors(NamedTuple):
    """Official Collectors with certificates of a private CA, and the files for clients."""

    files: dict[str, str]
    collectors: dict[str, Official]


@pytest.fixture(scope="module")
def tls_collectors(
    official_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TLSCollectors]:
    """A Collector that accepts every client, and one that requires a certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("client.invalid")
    files = {name: str(folder / f"{name}.pem") for name in ("ca_file", "key_file", "cert_file")}
    authority.cert_pem.write_to_path(files["ca_file"])
    client.private_key_pem.write_to_path(files["key_file"])
    client.cert_chain_pems[0].write_to_path(files["cert_file"])
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    server_files = {"cert_file": str(folder / "server.pem"), "key_file": str(folder / "server.pem")}
    with contextlib.ExitStack() as stack:
        collectors = {}
        for name, tls in {
            "any client": server_files,
            "known clients": server_files | {"client_ca_file": files["ca_file"]},
        }.items():
            collector = Official(official_binary, tmp_path_factory.mktemp("tls-collector"), tls=tls)
            collectors[name] = stack.enter_context(collector.running())
        yield TLSCollectors(files, collectors)


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
    protocol: str,
    name: str,
    files: Sequence[str],
    form: str,
    tls_collectors: TLSCollectors,
    *,
    record_with: RecordWith,
) -> None:
    """Both forms of the variables set a private CA and a client certificate."""
    sent = record_with(
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=tls_collectors.collectors[name].endpoint(protocol),
        **{
            f"OTEL_EXPORTER_OTLP_{form}{TLS_VARIABLES[file]}": tls_collectors.files[file]
            for file in files
        },
    )
    assert sent.status == "DELIVERED", sent
    assert tls_collectors.collectors[name].find(sent.id)


@pytest.mark.parametrize(("name", "files"), NOT_TRUSTED)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_untrusted(
    protocol: str,
    name: str,
    files: Sequence[str],
    tls_collectors: TLSCollectors,
    record_with: RecordWith,
) -> None:
    """Nothing is delivered if the client or the Collector does not trust the other."""
    sent = record_with(
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=tls_collectors.collectors[name].endpoint(protocol),
        OTEL_EXPORTER_OTLP_TIMEOUT="0.5",
        **{
            f"OTEL_EXPORTER_OTLP_{TLS_VARIABLES[file]}": tls_collectors.files[file]
            for file in files
        },
    )
    assert sent.status == "FAILED"
    assert sent.reason
    assert sent.id not in str(tls_collectors.collectors[name].resources())


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(("name", "files"), TRUSTED)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_by_argument(
    protocol: str, name: str, files: Sequence[str], tls_collectors: TLSCollectors
) -> None:
    """The argument sets the same files."""
    outcome = export_start(
        protocol=protocol,
        endpoint=logs_url(tls_collectors.collectors[name].endpoint(protocol), protocol),
        tls={file: tls_collectors.files[file] for file in files},
    )
    assert outcome.status is Status.DELIVERED, outcome


EXPORT_SCRIPT = """
import json, sys
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from tbot_otel import StartEvent, TbotLogExporter, record_start
from tbot_otel.registry import SCHEMA_URL
provider = LoggerProvider()
exporter = TbotLogExporter(**json.loads(sys.argv[1]))
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
event = StartEvent(run_mode="daemon", version="18.3.0")
print(record_start(event, logger_provider=provider).flush(15).status.name)
"""

# Replacements for a file: absent, empty, or missing.
INCOMPLETE: dict[str, dict[str, str | None]] = {
    "no key": {"key_file": None},
    "no certificate": {"cert_file": None},
    "an empty key": {"key_file": os.devnull},
    "a missing key": {"key_file": "missing.pem"},
}


@pytest.mark.parametrize("by", ["variable", "argument"])
@pytest.mark.parametrize("case", INCOMPLETE)
def test_incomplete_client_certificate(case: str, by: str, tls_collectors: TLSCollectors) -> None:
    """An incomplete client certificate, on which gRPC aborts, fails only the export."""
    endpoint = tls_collectors.collectors["known clients"].endpoint("grpc")
    files = {
        name: file for name, file in {**tls_collectors.files, **INCOMPLETE[case]}.items() if file
    }
    if by == "variable":
        sent = record_start_in_process(
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            **{f"OTEL_EXPORTER_OTLP_{TLS_VARIABLES[name]}": files[name] for name in files},
        )
        assert sent.status == "FAILED"
    else:
        arguments = {"protocol": "grpc", "endpoint": endpoint, "tls": files}
        done = run_python(
            "-c", EXPORT_SCRIPT, json.dumps(arguments), TELEPORT_ANONYMOUS_TELEMETRY="1"
        )
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
def test_ca_argument_wins(tls_collectors: TLSCollectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CA for the export wins over the one for every HTTP client."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", tls_collectors.files["cert_file"])
    outcome = export_start(
        endpoint=f"{tls_collectors.collectors['any client'].endpoint('http/protobuf')}/v1/logs",
        tls={"ca_file": tls_collectors.files["ca_file"]},
    )
    assert outcome.status is Status.DELIVERED, outcome


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("shape", HEADERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_by_argument(protocol: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers in each shape of a declarative file win over their variable."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=variable")
    with accepting_standin(protocol) as collector:
        endpoint = logs_url(collector.endpoint, protocol)
        outcome = export_start(protocol=protocol, endpoint=endpoint, **HEADERS[shape])
    assert outcome.status is Status.DELIVERED, outcome
    (request,) = collector.requests
    assert request.headers["x-tenant"] == "blue"
    assert request.headers["x-none"] == ""


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arguments_win(
    protocol: str, monkeypatch: pytest.MonkeyPatch, tls_collectors: TLSCollectors
) -> None:
    """Every argument wins over its variable."""
    for name, value in {
        "PROTOCOL": "http/thrift",
        "ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "COMPRESSION": "gzip",
        "TIMEOUT": "0.000001",
        "CERTIFICATE": tls_collectors.files["cert_file"],
    }.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_LOGS_{name}", value)
    collector = tls_collectors.collectors["any client"]
    outcome = export_start(
        protocol=protocol,
        endpoint=logs_url(collector.endpoint(protocol), protocol),
        compression="none",
        timeout=10_000,
        tls={"ca_file": tls_collectors.files["ca_file"]},
    )
    assert outcome.status is Status.DELIVERED, outcome


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("protocol", "compression"),
    [
        *((protocol, compression) for protocol in PROTOCOLS for compression in ("none", "gzip")),
        ("http/protobuf", "deflate"),
    ],
)
def test_compression_by_argument(
    protocol: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument sets the compression, regardless of the variable."""
    if compression == "none":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with (
        accepting_standin(protocol) as collector,
        recording_proxy(collector.endpoint) as (endpoint, sent_bytes),
    ):
        outcome = export_start(
            protocol=protocol, endpoint=logs_url(endpoint, protocol), compression=compression
        )
    assert outcome.status is Status.DELIVERED, outcome
    assert (b"tbot.join_type" in b"".join(sent_bytes)) == (compression == "none")


@pytest.mark.usefixtures("opted_in")
def test_grpc_insecure_by_argument() -> None:
    """Over gRPC, the argument allows plain text for an endpoint without a scheme."""
    with GRPCStandin() as collector:
        outcome = export_start(
            protocol="grpc",
            endpoint=collector.endpoint.removeprefix("http://"),
            tls={"insecure": True},
        )
    assert outcome.status is Status.DELIVERED, outcome


@pytest.mark.usefixtures("opted_in")
def test_timeout_by_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument is in milliseconds, as in a declarative file; the variable is in seconds."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
    with HTTPStandin(Response(delay=1)) as collector:
        outcome = export_start(endpoint=f"{collector.endpoint}/v1/logs", timeout=300)
    assert outcome.status is Status.FAILED


@pytest.mark.usefixtures("opted_in")
def test_unknown_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown argument is logged by its name and ignored."""
    with HTTPStandin(Response()) as collector:
        outcome = export_start(endpoint=f"{collector.endpoint}/v1/logs", retries="s3cret")
    assert outcome.status is Status.DELIVERED, outcome
    assert logged_messages(caplog) == ["TbotLogExporter: ignored the unknown argument retries"]


def logged_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of our logger."""
    return [record.getMessage() for record in caplog.records if record.name == "tbot_otel"]


INVALID_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"protocol": 5}, "protocol: expected text"),
    ({"protocol": "HTTP/PROTOBUF"}, "protocol: expected http/protobuf or grpc"),
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
    # If a mistyped name were ignored, the Collector's certificate would not be checked.
    ({"tls": {"ca_flie": "x"}}, "tls: expected only insecure, ca_file, cert_file, key_file"),
    ({"timeout": float("inf")}, "timeout: expected milliseconds"),
    ({"exporter": "s3cret"}, "exporter: expected a LogRecordExporter"),
    ({"exporter": ConsoleLogRecordExporter(), "timeout": "1"}, "timeout: expected milliseconds"),
]


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    INVALID_ARGUMENTS,
    ids=["+".join(arguments) for arguments, _ in INVALID_ARGUMENTS],
)
def test_invalid_arguments(
    arguments: dict[str, Any],
    problem: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An invalid argument is logged once, without its value; nothing is sent or raised."""
    with HTTPStandin(Response()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        provider = LoggerProvider()
        provider.add_log_record_processor(SimpleLogRecordProcessor(TbotLogExporter(**arguments)))
        for _ in range(2):
            outcome = record_start(StartEvent(**MINIMAL_EVENT), logger_provider=provider).flush(15)
            assert (outcome.status, outcome.reason) == (Status.FAILED, problem)
        provider.shutdown()
    assert collector.requests == []
    assert logged_messages(caplog) == [f"TbotLogExporter sends nothing: {problem}"]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("protocol", ["http/json", "http/thrift"])
def test_unsupported_protocol(protocol: str) -> None:
    """An unsupported protocol fails with one line that names the supported ones."""
    problem = "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or grpc"
    with HTTPStandin(Response()) as collector:
        sent = record_start_in_process(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
    assert (sent.status, sent.reason) == ("FAILED", problem)
    assert sent.stderr == f"TbotLogExporter sends nothing: {problem}\n"
    assert collector.requests == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_missing_exporter(protocol: str) -> None:
    """A protocol whose exporter is not installed fails with one line that names the package."""
    module = EXPORTER_MODULES[protocol]
    done = run_python(
        *("-c", f"import sys; sys.modules[{module!r}] = None\n{RECORD_START_SCRIPT}"),
        json.dumps(MINIMAL_EVENT),
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert done.returncode == 0, done.stderr
    package = module.replace(".", "-")
    problem = f"protocol {protocol}: the package {package} is not installed"
    result = json.loads(done.stdout)
    assert (result["status"], result["reason"]) == ("FAILED", problem)
    assert done.stderr == f"TbotLogExporter sends nothing: {problem}\n"


@pytest.mark.usefixtures("opted_in")
def test_endpoint_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The login in an endpoint is sent, and wins over the one in .netrc."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login alice password wonderland\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with HTTPStandin(Response()) as collector:
        url = collector.endpoint.replace("://", "://team:open%20sesame@")
        outcome = export_start(endpoint=f"{url}/v1/logs")
    assert outcome.status is Status.DELIVERED
    (request,) = collector.requests
    login = base64.b64encode(b"team:open sesame").decode()
    assert request.headers["authorization"] == f"Basic {login}"
