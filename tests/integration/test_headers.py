"""Only what the settings name leaves: no header of an agent, and no variable of later."""

import contextlib
import http.client
import os
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc import exporter as official_grpc

from support.otlp import PROTOCOLS
from support.processes import free_port, run_python
from support.standins import (
    GRPCStandin,
    HTTPStandin,
    ReceivedRequest,
    Response,
    accepting_standin,
    refused_port,
)
from tbot_otel import Outcome, Status
from tbot_otel.otlp.arguments import Arguments
from tbot_otel.otlp.responses import ResponseObserver
from tbot_otel.otlp.send import build_exporter, export_and_observe
from tbot_otel.otlp.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("opted_in")

ALLOWED = {
    "http/protobuf": {
        *("host", "accept-encoding", "content-type", "content-length", "user-agent", "x-tenant"),
    },
    "grpc": {"user-agent", "x-tenant"},
}


def export(settings: Settings) -> Outcome:
    """Export no records."""
    observer = ResponseObserver()
    exporter = build_exporter(settings, observer)
    try:
        return export_and_observe(exporter, observer, [])
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no type here


def settings_for(protocol: str, endpoint: str, **arguments: Any) -> Settings:
    """The settings of an exporter for the base URL of a protocol."""
    url = endpoint if protocol == "grpc" else f"{endpoint}/v1/logs"
    headers = {"x-tenant": "blue"}
    return read_settings(Arguments(protocol=protocol, endpoint=url, headers=headers, **arguments))


def check_headers(protocol: str, requests: list[ReceivedRequest]) -> None:
    """Check that one request arrived, with our headers and no others."""
    (request,) = requests
    assert request.headers.keys() == ALLOWED[protocol]
    assert request.headers["x-tenant"] == "blue"


HOOKS = ("request", "_send_request", "putrequest", "putheader", "endheaders", "_send_output")


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("through_proxy", [False, True])
def test_hooks_of_http(hook: str, through_proxy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that an agent adds in a method of `http.client` does not leave."""
    original: Callable[..., Any] = getattr(http.client.HTTPConnection, hook)
    put_header = http.client.HTTPConnection.putheader

    def hooked(self: Any, *arguments: Any, **options: Any) -> Any:
        if hook == "putrequest":
            original(self, *arguments, **options)
            put_header(self, "sentry-trace", "s3cret")
            return None
        with contextlib.suppress(http.client.CannotSendHeader):
            put_header(self, "sentry-trace", "s3cret")
        return original(self, *arguments, **options)

    monkeypatch.setattr(http.client.HTTPConnection, hook, hooked)
    with HTTPStandin(Response()) as collector:
        endpoint = collector.endpoint
        if through_proxy:
            monkeypatch.setenv("http_proxy", endpoint)
            endpoint = "http://collector.invalid"
        outcome = export(settings_for("http/protobuf", endpoint))
    assert outcome.status is Status.DELIVERED, outcome
    check_headers("http/protobuf", collector.requests)


class AddedMetadata(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpcio has no types
    """An interceptor that adds metadata, as an agent does."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Add metadata."""
        metadata = [*(details.metadata or ()), ("sentry-trace", "s3cret")]
        return continuation(details._replace(metadata=metadata), request)


@pytest.mark.parametrize("hook", ["insecure_channel", "secure_channel"])
def test_hooks_of_grpc(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that an agent adds in a channel that it wraps does not leave."""
    original: Callable[..., Any] = getattr(grpc, hook)

    def hooked(*arguments: Any, **options: Any) -> Any:
        return grpc.intercept_channel(original(*arguments, **options), AddedMetadata())

    monkeypatch.setattr(grpc, hook, hooked)
    monkeypatch.setattr(official_grpc, hook, hooked)
    with GRPCStandin() as collector:
        outcome = export(settings_for("grpc", collector.endpoint))
    assert outcome.status is Status.DELIVERED, outcome
    check_headers("grpc", collector.requests)


SENTRY_SCRIPT = """
import sys, sentry_sdk
from sentry_sdk.integrations.grpc import GRPCIntegration
sentry_sdk.init(
    dsn=sys.argv[1], traces_sample_rate=1.0, release="s3cret", integrations=[GRPCIntegration()]
)
from tbot_otel import StartEvent, record_start
with sentry_sdk.start_transaction(name="s3cret"):
    session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
    print(session.flush(30))
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sentry(protocol: str) -> None:
    """Sentry, which patches HTTP and gRPC clients, adds nothing to our requests."""
    with accepting_standin(protocol) as collector:
        done = run_python(
            *("-c", SENTRY_SCRIPT, f"http://key@127.0.0.1:{free_port()}/1"),
            timeout=60,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=blue",
            TELEPORT_ANONYMOUS_TELEMETRY="1",
        )
    assert "DELIVERED" in done.stdout, done.stderr
    check_headers(protocol, collector.requests)


LOGS_SCRIPT = """
import logging, os, sentry_sdk, warnings
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from tbot_otel import StartEvent, record_start

events, exporter, provider = [], InMemoryLogRecordExporter(), LoggerProvider()
sentry_sdk.init(
    before_send=lambda event, _: events.append(event["logger"]),
    dsn="http://key@127.0.0.1:1/1",
)
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
warnings.simplefilter("ignore", DeprecationWarning)
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
for protocol in ("http/protobuf", "junk"):
    os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(30)
logging.getLogger("app").error("its own")
print(events, [record.log_record.body for record in exporter.get_finished_logs()])
"""


def test_own_lines_stay_here() -> None:
    """An application's logs do not export what we log about our own start."""
    with refused_port() as port:
        done = run_python(
            *("-c", LOGS_SCRIPT),
            timeout=60,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            TELEPORT_ANONYMOUS_TELEMETRY="1",
        )
    assert done.stdout == "['app'] ['its own']\n", done.stderr
    refused, junk = done.stderr.splitlines()
    assert refused == "not delivered, 1 in the batch: the Collector refused the connection"
    assert junk.startswith("TbotLogExporter sends nothing: OTEL_EXPORTER_OTLP_PROTOCOL: expected")


@pytest.mark.parametrize("value", ["", "s3cret"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_variables_of_later(protocol: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set after the settings were read changes nothing."""
    names = ("ENDPOINT", "HEADERS", "PROTOCOL", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "INSECURE")
    with accepting_standin(protocol) as collector:
        settings = settings_for(protocol, collector.endpoint)
        for form in ("", "LOGS_"):
            for name in names:
                text = f"x-other={value},user-agent={value}" if name == "HEADERS" else value
                monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{form}{name}", text)
            for transport in ("HTTP", "GRPC"):
                name = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}_{form}CREDENTIAL_PROVIDER"
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", value)
        for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        outcome = export(settings)
    assert outcome.status is Status.DELIVERED, outcome
    check_headers(protocol, collector.requests)
    assert "s3cret" not in str(collector.requests[0].headers)
    assert os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == value
