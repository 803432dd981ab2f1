"""What a sender learns of each attempt: its outcome, its reason, and consent before it."""

import contextlib
import datetime as dt
import json
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from support.agent import AGENT_PATH
from support.credentials import install_credential_providers
from support.otlp import PROTOCOLS
from support.processes import WAIT_SECONDS, free_port, run_python, wait_until
from support.standins import (
    GRPCStandin,
    HTTPStandin,
    Response,
    accepting_standin,
    silent_port,
    socks_proxy,
    streaming_port,
    tunnel_proxy,
)
from support.starts import own_record, record_start_in_process
from tbot_otel import Outcome, StartEvent, Status, TbotLogExporter
from tbot_otel.otlp import grpc as otlp_grpc
from tbot_otel.otlp import http as otlp_http
from tbot_otel.otlp.client import MAX_RESPONSE_BYTES
from tbot_otel.session import Start

EVENT = StartEvent(run_mode="daemon", version="18.3.0")
UNOBSERVED = "the response was not observed"
NOT_A_RECEIVER = "the response is not from an OTLP receiver"
TIMED_OUT = "the Collector did not respond in time"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opt in, without the machine's proxies and certificate authorities."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1")
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def exporting(**arguments: Any) -> Iterator[Callable[[], Outcome]]:
    """A function that exports a start on this thread, with an exporter of these arguments."""
    exporter = TbotLogExporter(**arguments)

    def export() -> Outcome:
        start = Start()
        exporter.export([own_record(start)])
        return start.outcome

    yield export
    exporter.shutdown()


def export_once(protocol: str, endpoint: str, **arguments: Any) -> Outcome:
    """Export a start to the base URL of a protocol."""
    url = endpoint if protocol == "grpc" else f"{endpoint}/v1/logs"
    with exporting(protocol=protocol, endpoint=url, **arguments) as export:
        return export()


# --- observed or not


class SucceedingExporter(LogRecordExporter):
    """An exporter that reports a result, and sends nothing."""

    def __init__(self, result: LogRecordExportResult) -> None:
        self._result = result

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Report the result."""
        assert batch
        return self._result

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Do nothing."""
        return bool(timeout_millis)


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        (LogRecordExportResult.SUCCESS, Status.UNOBSERVED, UNOBSERVED),
        (LogRecordExportResult.FAILURE, Status.FAILED, "the exporter reported a failure"),
    ],
)
def test_exporter_of_the_caller(result: LogRecordExportResult, status: Status, reason: str) -> None:
    """The success of an exporter that the caller passes is not a delivery."""
    with exporting(exporter=SucceedingExporter(result)) as export:
        outcome = export()
    assert (outcome.status, outcome.reason) == (status, reason)


class UnobservableExporter(OTLPLogExporter):
    """An official exporter that uses its own HTTP client."""

    def __init__(self, *, session: object = None, **arguments: Any) -> None:
        assert session is not None
        super().__init__(**arguments)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exporter_of_another_release(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a release has no place to observe responses, an export that succeeds is unobserved."""
    if protocol == "grpc":
        monkeypatch.delattr(otlp_grpc._ObservedExporter, "_client")
    else:
        monkeypatch.setattr(otlp_http, "OTLPLogExporter", UnobservableExporter)
    with accepting_standin(protocol) as collector:
        outcome = export_once(protocol, collector.endpoint)
    assert (outcome.status, outcome.reason) == (Status.UNOBSERVED, UNOBSERVED)
    assert len(collector.requests) == 1


class SessionExporter(OTLPLogExporter):
    """An official exporter of a release without transports."""

    def __init__(
        self,
        endpoint: Any = None,
        headers: Any = None,
        timeout: Any = None,
        compression: Any = None,
        session: Any = None,
    ) -> None:
        super().__init__(
            endpoint=endpoint,
            headers=headers,
            timeout=timeout,
            compression=compression,
            session=session,
        )


@pytest.mark.parametrize("exporter", [OTLPLogExporter, SessionExporter])
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, "the Collector accepted it"),
        (302, "the Collector responded with 302"),
        (400, "the Collector responded with 400"),
    ],
)
def test_anonymous_client(
    exporter: type[OTLPLogExporter],
    status: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As a transport and as a session, the client has no cookies, no .netrc and no redirects."""
    monkeypatch.setattr(otlp_http, "OTLPLogExporter", exporter)
    (tmp_path / ".netrc").write_text("default login alice password wonderland\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    headers = {"Set-Cookie": "start=1; Path=/", "Location": "/other"}
    with HTTPStandin(Response(status, headers=headers)) as collector:
        endpoint = f"{collector.endpoint}/v1/logs"
        with exporting(endpoint=endpoint, headers={"x-tenant": "blue"}) as export:
            outcomes = [export() for _ in range(2)]
    assert [outcome.reason for outcome in outcomes] == [reason] * 2
    assert [request.path for request in collector.requests] == ["/v1/logs"] * 2
    for request in collector.requests:
        assert request.headers["x-tenant"] == "blue"
        assert not request.headers.keys() & {"cookie", "authorization", "accept"}
        assert request.headers["accept-encoding"] == "identity"


REQUESTS_SCRIPT = """
import sys
from tbot_otel import StartEvent, record_start
print(record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(15).status.name)
print("requests" in sys.modules, "urllib3" in sys.modules)
"""


def test_imports() -> None:
    """Neither requests nor urllib3 is imported where the official exporter has transports."""
    with HTTPStandin(Response()) as collector:
        done = run_python(
            *("-c", REQUESTS_SCRIPT),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
    imported = "_transport" not in signature(OTLPLogExporter).parameters
    assert done.stdout.splitlines() == ["DELIVERED", f"{imported} {imported}"], done.stderr


@pytest.fixture
def credential_provider(tmp_path: Path) -> dict[str, str]:
    """Variables that opt in and name a provider of an HTTP session."""
    return {
        "TELEPORT_ANONYMOUS_TELEMETRY": "1",
        "PYTHONPATH": install_credential_providers(tmp_path),
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "session",
    }


def test_emit_unobserved(credential_provider: dict[str, str]) -> None:
    """Emit exits with 0, and says that the response was not observed."""
    with HTTPStandin(Response()) as collector:
        done = run_python(
            *("-m", "tbot_otel", "emit", "--daemon", "--tbot-version=18.3.0"),
            timeout=60,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            **credential_provider,
        )
    assert (done.returncode, len(collector.requests)) == (0, 1), done.stderr
    assert done.stderr.startswith(f"tbot-otel: sent to {collector.endpoint}/v1/logs ")
    assert "; the response was not observed, session " in done.stderr


def test_run_unobserved(credential_provider: dict[str, str], tmp_path: Path) -> None:
    """The forwarder responds with 200, and says that the response was not observed."""
    log = tmp_path / "log"
    with HTTPStandin(Response()) as collector:
        done = run_python(
            *("-m", "tbot_otel", "run", "--log", str(log), "--", sys.executable, AGENT_PATH),
            timeout=60,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            **credential_provider,
        )
        assert json.loads(done.stdout)["answer"] == "ok", done.stderr
        text = wait_until(log.read_text)
    assert len(collector.requests) == 1
    assert f"tbot's start was sent to {collector.endpoint}/v1/logs " in text
    assert text.endswith("; the response was not observed\n")


def test_relay_unobserved(credential_provider: dict[str, str]) -> None:
    """The relay acknowledges only accepted reports, and does not start if it cannot know."""
    done = run_python(
        *("-m", "tbot_otel", "relay", "--listen", f"127.0.0.1:{free_port()}"),
        timeout=60,
        **credential_provider,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(
        "tbot-otel relay: the relay cannot observe the Collector's responses"
    )


# --- consent

WITHDRAWALS = {
    "TELEPORT_ANONYMOUS_TELEMETRY": "0",
    "OTEL_SDK_DISABLED": "true",
    "DO_NOT_TRACK": "1",
}


@pytest.mark.parametrize("variable", WITHDRAWALS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_consent_withdrawn_between_attempts(
    protocol: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After consent is withdrawn, an export makes no further attempt."""

    def withdraw() -> None:
        monkeypatch.setenv(variable, WITHDRAWALS[variable])

    with (
        GRPCStandin("UNAVAILABLE", "OK", on_request=withdraw)
        if protocol == "grpc"
        else HTTPStandin(Response(503), Response(), on_request=withdraw)
    ) as collector:
        outcome = export_once(protocol, collector.endpoint, timeout=WAIT_SECONDS * 1000)
    assert outcome.status is Status.REFUSED, outcome
    assert outcome.reason.startswith(variable)
    assert len(collector.requests) == 1


# --- reasons


@contextlib.contextmanager
def tls_standin(
    protocol: str,
    authority: trustme.CA,
    names: Sequence[str] = ("localhost", "127.0.0.1"),
    **arguments: Any,
) -> Iterator[HTTPStandin | GRPCStandin]:
    """A stand-in with a certificate of this authority."""
    certificate = authority.issue_cert(*names, **arguments)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    with (
        GRPCStandin(credentials=credentials)
        if protocol == "grpc"
        else HTTPStandin(Response(), tls=context)
    ) as collector:
        yield collector


YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
CERTIFICATES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({}, "unable to get local issuer certificate"),
    "expired": ({"not_after": YESTERDAY}, "certificate has expired"),
    "other name": ({"names": ["s3cret.invalid"]}, "it is for another name"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_certificate(protocol: str, case: str, tmp_path: Path) -> None:
    """A certificate that is not trusted is named, without the names in it."""
    arguments, problem = CERTIFICATES[case]
    authority = trustme.CA()
    trusted = trustme.CA() if case == "unknown" else authority
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    with tls_standin(protocol, authority, **arguments) as collector:
        # gRPC tells the error of the last address, and localhost has two.
        host = "127.0.0.1" if protocol == "grpc" else "localhost"
        outcome = export_once(
            protocol,
            collector.endpoint.replace("localhost", host),
            tls={"ca_file": str(tmp_path / "ca.pem")},
            timeout=2_000,
        )
    assert outcome.status is Status.FAILED
    assert outcome.reason == f"tls: the Collector's certificate is not trusted ({problem})"
    assert collector.requests == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refused(protocol: str) -> None:
    """A Collector that is down is named as such."""
    outcome = export_once(protocol, f"http://127.0.0.1:{free_port()}", timeout=500)
    assert outcome.reason == "the Collector refused the connection"


def test_unavailable() -> None:
    """Over gRPC, what the Collector says of its own connections is not said of ours."""
    with GRPCStandin("UNAVAILABLE") as collector:
        outcome = export_once("grpc", collector.endpoint, timeout=500)
    assert outcome.reason == "the Collector did not accept the export (UNAVAILABLE)"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_silent(protocol: str) -> None:
    """A Collector that does not respond is named as such."""
    with silent_port() as port:
        outcome = export_once(protocol, f"http://127.0.0.1:{port}", timeout=500)
    assert outcome.reason == TIMED_OUT


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unknown_name(protocol: str) -> None:
    """A Collector's name that does not exist is named as such."""
    outcome = export_once(protocol, "http://collector.invalid:4318", timeout=15_000)
    assert outcome.reason == "the Collector's name was not found"


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_missing_file(protocol: str, name: str, tmp_path: Path) -> None:
    """A file for TLS that is missing is named, without its path, and can appear later."""
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    files = {
        "cert_file": str(tmp_path / "client.pem"),
        "key_file": str(tmp_path / "client.pem"),
        name: str(tmp_path / "s3cret"),
    }
    outcome = export_once(protocol, "https://localhost:1", tls=files)
    expected = f"tls.{name}: expected a file that can be read (No such file or directory)"
    assert (outcome.status, outcome.reason) == (Status.FAILED, expected)
    assert outcome.can_retry


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_file_without_pem(protocol: str, name: str, tmp_path: Path) -> None:
    """A file that is not PEM is named."""
    (tmp_path / "file").write_text("s3cret")
    path = str(tmp_path / "file")
    files = {name: path} | ({"key_file": path} if name == "cert_file" else {})
    outcome = export_once(protocol, "https://localhost:1", tls=files)
    assert outcome.reason in (
        "tls.ca_file: expected a file of PEM",
        "tls.cert_file: expected a client certificate and its key in PEM",
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_https_to_a_plain_port(protocol: str) -> None:
    """TLS to a port without TLS is named."""
    with HTTPStandin(Response()) as collector:
        endpoint = collector.endpoint.replace("http:", "https:")

        def is_named() -> bool:
            reason = export_once(protocol, endpoint, timeout=1_000).reason
            return reason.startswith("tls: the connection failed (")

        # The last attempt of gRPC's exporter can run into the timeout.
        wait_until(is_named)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_login_is_not_logged(protocol: str) -> None:
    """Neither our log nor that of the official exporter shows the login in the endpoint."""
    sent = record_start_in_process(
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://alice:s3cret@127.0.0.1:{free_port()}",
        OTEL_EXPORTER_OTLP_TIMEOUT="0.5",
    )
    assert (sent.status, sent.reason) == (
        "FAILED",
        "OTEL_EXPORTER_OTLP_ENDPOINT: expected no login, which only http/protobuf sends"
        if protocol == "grpc"
        else "the Collector refused the connection",
    )
    assert "s3cret" not in sent.stderr
    assert "alice" not in sent.stderr


# --- responses without an end

CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
STREAMS: dict[str, tuple[bytes, bytes, float, str]] = {
    "body": (CLOSE + b"\r\n", b"x" * 2**14, 0, NOT_A_RECEIVER),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"4000\r\n" + b"x" * 2**14 + b"\r\n",
        0,
        NOT_A_RECEIVER,
    ),
    "slow body": (CLOSE + b"\r\n", b"x", 0.02, TIMED_OUT),
    "slow headers": (CLOSE + b"x-a: ", b"x", 0.02, TIMED_OUT),
    "error": (b"HTTP/1.1 400 No\r\n\r\n", b"x", 0.02, "the Collector responded with 400"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_endless_response(name: str) -> None:
    """A response without an end is bounded in size and in time."""
    head, chunk, pause, reason = STREAMS[name]
    with streaming_port(head, chunk, pause) as (port, sent):
        outcome = export_once("http/protobuf", f"http://127.0.0.1:{port}", timeout=1_000)
    assert (outcome.status, outcome.reason) == (Status.FAILED, reason)
    # The kernel's buffers hold the rest.
    assert sum(sent) < 100 * MAX_RESPONSE_BYTES


def test_truncated_response() -> None:
    """A response that ends too early is not a delivery."""
    response = Response(200, b"", {"Content-Length": "10", "Connection": "close"})
    with HTTPStandin(response) as collector:
        outcome = export_once("http/protobuf", collector.endpoint, timeout=500)
    assert outcome.status is Status.FAILED


def test_connections() -> None:
    """Exports share a connection, and one that the Collector has closed is replaced."""
    for response, count in (
        (Response(), 1),
        (Response(headers={"Connection": "close"}), 3),
        (Response(closes=True), 3),
    ):
        with HTTPStandin(response) as collector:
            endpoint = f"{collector.endpoint}/v1/logs"
            with exporting(endpoint=endpoint) as export:
                assert [export().status for _ in range(3)] == [Status.DELIVERED] * 3
        assert collector.connection_count == count


# --- proxies

REMOTE_ENDPOINT = "http://collector.invalid:4318"
"""An endpoint that is reached only through a proxy."""


def test_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets its login, and the Collector's."""
    with HTTPStandin(Response()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint.replace("://", "://team:open%20sesame@"))
        outcome = export_once("http/protobuf", REMOTE_ENDPOINT.replace("://", "://a:b@"))
    assert outcome.status is Status.DELIVERED, outcome
    (request,) = proxy.requests
    assert request.path == f"{REMOTE_ENDPOINT}/v1/logs"
    assert request.headers["authorization"] == "Basic YTpi"
    assert request.headers["proxy-authorization"] == "Basic dGVhbTpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_proxy_for_loopback(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Collector on this machine is reached without the proxy."""
    with tunnel_proxy() as (address, heads), accepting_standin(protocol) as collector:
        for name in ("http_proxy", "https_proxy", "ALL_PROXY", "grpc_proxy"):
            monkeypatch.setenv(name, address)
        outcome = export_once(protocol, collector.endpoint)
    assert outcome.status is Status.DELIVERED, outcome
    assert heads == []


def test_proxy_of_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over gRPC too, the proxy is used, and gets its login."""
    with tunnel_proxy() as (address, heads), GRPCStandin() as collector:
        monkeypatch.setenv("https_proxy", address.replace("://", "://team:sesame@"))
        port = collector.endpoint.rpartition(":")[2]
        outcome = export_once("grpc", f"http://collector.invalid:{port}")
    assert outcome.status is Status.DELIVERED, outcome
    assert heads[0].startswith(f"CONNECT collector.invalid:{port} ".encode())
    assert b"Basic dGVhbTpzZXNhbWU=" in heads[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_tunnel(scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TLS goes through the proxy's tunnel, and the proxy sees no header of the export."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with (
        tls_standin("http/protobuf", authority, ["collector.invalid"]) as collector,
        tunnel_proxy(tls=context if scheme == "https" else None) as (address, heads),
        exporting(
            endpoint=collector.endpoint.replace("localhost", "collector.invalid"),
            headers={"x-token": "s3cret"},
            tls={"ca_file": str(tmp_path / "ca.pem")},
        ) as export,
    ):
        monkeypatch.setenv("HTTPS_PROXY", address)
        outcomes = [export() for _ in range(2)]
    assert [outcome.status for outcome in outcomes] == [Status.DELIVERED] * 2, outcomes
    assert len(collector.requests) == 2
    (head,) = heads
    assert head.startswith(b"CONNECT collector.invalid:")
    assert b"s3cret" not in head


@pytest.mark.parametrize("state", ["refused", "407", "unknown name"])
def test_proxy_failures(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the proxy is not one of the Collector."""
    with tunnel_proxy(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n") as (address, _):
        proxy, reason = {
            "refused": (f"http://127.0.0.1:{free_port()}", "the proxy refused the connection"),
            "407": (address, "the proxy responded with 407"),
            "unknown name": ("http://proxy.invalid:1", "the proxy's name was not found"),
        }[state]
        monkeypatch.setenv("https_proxy", proxy)
        outcome = export_once("http/protobuf", "https://collector.invalid:1", timeout=1_000)
    assert outcome.reason == reason


def test_endless_response_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy too, a body without an end is bounded."""
    head, chunk, pause, reason = STREAMS["body"]
    with streaming_port(head, chunk, pause) as (port, sent):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        outcome = export_once("http/protobuf", REMOTE_ENDPOINT, timeout=1_000)
    assert (outcome.status, outcome.reason) == (Status.FAILED, reason)
    assert sum(sent) < 100 * MAX_RESPONSE_BYTES


@pytest.mark.parametrize(
    ("login", "told"),
    [
        ("", ["collector.invalid"]),
        ("user:pass%20word@", ["user:pass word", "collector.invalid"]),
    ],
)
def test_socks_proxy(login: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy looks the name up, and passes the record on."""
    with accepting_standin("http/protobuf") as collector, socks_proxy() as (address, was_told):
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{login}{address}")
        port = collector.endpoint.rpartition(":")[2]
        outcome = export_once("http/protobuf", f"http://collector.invalid:{port}")
    assert outcome.status is Status.DELIVERED, outcome
    assert was_told == told
    assert len(collector.requests) == 1


def test_socks_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy needs a package, and is not left out without it."""
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1080")
    outcome = export_once("http/protobuf", REMOTE_ENDPOINT)
    assert outcome.reason == "ALL_PROXY: a SOCKS proxy needs the package PySocks"


# --- certificate authorities

AUTHORITIES: dict[str, tuple[dict[str, str], bool]] = {
    "none": ({}, False),
    "the system's store": ({"SSL_CERT_FILE": "ca.pem"}, True),
    "requests": ({"REQUESTS_CA_BUNDLE": "ca.pem"}, True),
    "curl": ({"CURL_CA_BUNDLE": "ca.pem"}, True),
    "requests first": ({"REQUESTS_CA_BUNDLE": "other.pem", "CURL_CA_BUNDLE": "ca.pem"}, False),
    "not the store": ({"REQUESTS_CA_BUNDLE": "other.pem", "SSL_CERT_FILE": "ca.pem"}, False),
    "the export first": (
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem", "REQUESTS_CA_BUNDLE": "other.pem"},
        True,
    ),
}


@pytest.mark.parametrize("case", AUTHORITIES)
def test_authorities(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, every SDK trusts the same authorities."""
    variables, is_trusted = AUTHORITIES[case]
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with tls_standin("http/protobuf", authority) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
        for name, file in variables.items():
            monkeypatch.setenv(name, str(tmp_path / file))
        with exporting() as export:
            outcome = export()
    assert outcome.status.name == ("DELIVERED" if is_trusted else "FAILED"), outcome
    assert len(collector.requests) == is_trusted
