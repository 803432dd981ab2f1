"""The process of the relay, between agents and Collectors."""

import contextlib
import gzip
import http.client
import json
import os
import re
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import trustme
from connectrpc.client import ConnectClientSync
from connectrpc.codec import proto_binary_codec, proto_json_codec
from connectrpc.compression.gzip import GzipCompression
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from cryptography.hazmat.primitives import serialization
from google.protobuf.json_format import MessageToDict
from opentelemetry.sdk.version import __version__ as sdk_version
from protobuf.wkt import Timestamp
from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport

from support import agent
from support.cases import EMPTY_ATTRIBUTES, FULL_ATTRIBUTES
from support.collectors import MakeCollector, Official, Rotel
from support.messages import (
    JSON,
    MARKER,
    PROTO,
    REPORT,
    REPORT_ATTRIBUTES,
    encode_json_request,
    encode_request,
    encode_start,
    field,
    new_session_id,
)
from support.otlp import PROTOCOLS, attribute_values, partial_success
from support.processes import (
    WAIT_SECONDS,
    free_port,
    run_python,
    wait_until,
)
from support.relay import Relay, report_over_tls, running_relay, write_certificate
from support.relay_clients import (
    GATED_ENVIRON,
    GatedStandin,
    concurrently,
    exported_metrics,
    exported_points,
    exported_session_ids,
    gated_setup,
    is_full,
    report_until_admitted,
)
from support.setup_code import override_constants
from support.standins import (
    GRPCStandin,
    HTTPStandin,
    Response,
    silent_port,
)
from tbot_otel import __version__
from tbot_otel.connect import MAX_REQUEST_BYTES, METHOD, PATH
from tbot_otel.registry import SCHEMA_URL

# A clock that is an hour late.
AGENT_TIME = time.time_ns() - 3600 * 10**9
REJECTED = partial_success(1).SerializeToString()


@pytest.fixture(name="relay", scope="module", params=PROTOCOLS)
def relay_to_official(
    request: pytest.FixtureRequest, official: Official, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """A relay in front of the official Collector, for tests that do not disturb it."""
    folder = tmp_path_factory.mktemp("relay")
    protocol = request.param
    endpoint = official.endpoint(protocol)
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    with running_relay(folder, endpoint, host="localhost", **environ) as relay:
        yield relay


def report_with_runtime(
    url: str, session_id: str, transport: SyncHTTPTransport, timestamp: int, **options: Any
) -> str:
    """Report a start with the official runtime, and return the code of the response."""
    request = METHOD.input.from_binary(agent.build_request(session_id, oneshot=True))
    seconds, nanos = divmod(timestamp, 10**9)
    request.timestamp = Timestamp(seconds=seconds, nanos=nanos)
    client = ConnectClientSync(url, http_client=SyncClient(transport), **options)
    try:
        client.execute_unary(
            request=request, method=METHOD, timeout_ms=int(agent.REPORT_TIMEOUT_SECONDS * 1000)
        )
    except ConnectError as error:
        return error.code.value
    return "ok"


def check_received(official: Official, session_id: str) -> None:
    """Check every field that the official Collector has received for the agent's report."""
    logs = official.find_json(session_id)
    assert attribute_values(logs["resource"]["attributes"]) == {
        "service.name": "tbot",
        "session.id": session_id,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    (scope,) = logs["scopeLogs"]
    assert scope["scope"] == {"name": "tbot_otel", "version": __version__}
    assert logs["schemaUrl"] == scope["schemaUrl"] == SCHEMA_URL
    (record,) = scope["logRecords"]
    assert attribute_values(record.pop("attributes")) == EMPTY_ATTRIBUTES | agent.REPORTED
    # The time of receipt, less a part of a minute.
    received_at = int(record.pop("timeUnixNano"))
    assert 0 <= time.time_ns() - received_at < (WAIT_SECONDS + 60) * 10**9
    assert int(record.pop("observedTimeUnixNano")) == received_at
    # The Collector writes absent fields as empty ones.
    assert {name: value for name, value in record.items() if value not in ({}, "", 0)} == {
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": "tbot.start",
    }


@pytest.mark.parametrize("codec", [proto_binary_codec(), proto_json_codec()], ids=["proto", "json"])
@pytest.mark.parametrize("compression", [GzipCompression(), None], ids=["gzip", "plain"])
def test_delivered(relay: Relay, official: Official, codec: Any, compression: Any) -> None:
    """The Collector receives an acknowledged report as it was sent, and nothing else."""
    session_id, timestamp = new_session_id(), AGENT_TIME
    with SyncHTTPTransport(http_version=HTTPVersion.HTTP1) as transport:
        code = report_with_runtime(
            relay.url, session_id, transport, timestamp, codec=codec, send_compression=compression
        )
    assert code == "ok"
    check_received(official, session_id)


@pytest.mark.parametrize("client", agent.CLIENTS)
def test_delivered_without_a_timestamp(relay: Relay, official: Official, client: str) -> None:
    """A start without a timestamp is delivered too."""
    session_id = new_session_id()
    request = agent.build_request(session_id, oneshot=True)
    assert agent.CLIENTS[client](relay.url, request) == "ok"
    check_received(official, session_id)


def test_delivered_to_rotel(rotel: Rotel, tmp_path: Path) -> None:
    """Another Collector receives every attribute too."""
    session_id = new_session_id()
    with running_relay(tmp_path, rotel.endpoint("http/protobuf")) as relay:
        assert relay.report(session_id) == (200, "")
    received = rotel.find(session_id)
    assert received.attributes == REPORT_ATTRIBUTES
    assert not {"os.type", "host.arch", "host.name"} & received.resource.keys()


@pytest.mark.parametrize("protocol", [ProtocolType.GRPC, ProtocolType.GRPC_WEB], ids=str)
def test_other_protocols(relay: Relay, protocol: ProtocolType) -> None:
    """Calls over gRPC and gRPC-Web are refused without a traceback."""
    with SyncHTTPTransport(http_version=HTTPVersion.HTTP1) as transport:
        code = report_with_runtime(
            relay.url, new_session_id(), transport, time.time_ns(), protocol=protocol
        )
    assert code != "ok"
    assert "Traceback" not in relay.output()
    assert relay.report() == (200, "")


def test_tls(official: Official, tmp_path: Path) -> None:
    """With a certificate and its key, the relay accepts only TLS, with HTTP/1.1."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*encoding, serialization.NoEncryption()))
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with running_relay(tmp_path, official.endpoint("http/protobuf"), *options) as relay:
        session_id, timestamp = new_session_id(), AGENT_TIME
        with SyncHTTPTransport(tls_ca_cert=authority.cert_pem.bytes()) as transport:
            url = relay.url_for("https")
            assert report_with_runtime(url, session_id, transport, timestamp) == "ok"
        check_received(official, session_id)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        # As tbot's client, offer both.
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(relay.connect(), server_hostname="localhost") as connection:
            assert connection.selected_alpn_protocol() == "http/1.1"
        with pytest.raises((OSError, http.client.HTTPException)):
            relay.report()


def test_output_hides_variables(tmp_path: Path) -> None:
    """The relay prints no header, query or login of the Collector, although libraries log them."""
    secrets = ("a-user-name", "a-password", "a-token-in-the-query", "a-token-in-a-header")
    user, password, query, header = secrets
    endpoint = f"http://{user}:{password}@127.0.0.1:{free_port()}/v1/logs?{query}"
    environ = {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={header}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_LOG_LEVEL": "debug",
    }
    with running_relay(tmp_path, "", **environ) as relay:
        assert relay.report() == (503, "unavailable")
        assert "the Collector does not accept exports" in relay.output()
    assert not [secret for secret in secrets if secret in relay.output()]


ANY_HOST = "0.0.0.0"  # noqa: S104 - for some seconds
EXPOSED = "others on the network can add starts or see the path's secret"


def test_path_secret(tmp_path: Path) -> None:
    """With a secret, only the path with it accepts reports. No response or log repeats it."""
    secret = "a-Secret_of-16-or-more"
    (tmp_path / "secret").write_text(f"{secret}\n")
    (tmp_path / "secret").chmod(0o604)
    options = ("--path-secret-file", str(tmp_path / "secret"))
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, *options, host=ANY_HOST) as relay,
    ):
        for path in (
            *(PATH, f"/{secret}x{PATH}", f"/x/{secret}{PATH}"),
            *(f"/{secret}", "/", f"/{PATH}"),
        ):
            assert relay.post(REPORT, path=path) == (404, "", "")
        assert not standin.requests
        assert relay.post(REPORT, path=f"/{secret}{PATH}") == (200, "", "")
        assert relay.get("/healthz") == (200, "ok")
        assert secret not in relay.output()
        readable = "WARNING: --path-secret-file: other users of this machine can read it"
        assert relay.output().count(readable) == 1
        # It listens beyond loopback without TLS.
        assert relay.output().count(f"WARNING: {EXPOSED}") == 1


def test_no_path_secret(relay: Relay) -> None:
    """Without a secret, any other path is not found."""
    assert relay.post(REPORT, path=f"/x{PATH}") == (404, "", "")


def test_listen(tmp_path: Path) -> None:
    """The relay listens on an IPv6 address. The one above listens on that of a host name.

    The Collector is probed although there is no call.
    """
    setup = override_constants("tbot_otel.relay.readiness", MAX_IDLE_SECONDS=0)
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, host="::1", setup=setup) as relay,
    ):
        wait_until(lambda: standin.requests)
        assert EXPOSED not in relay.output()
        session_id = new_session_id()
        request = agent.build_request(session_id, oneshot=False)
        assert agent.call_with_http(relay.url, request) == "ok"
        assert relay.report() == (200, "")
        assert exported_session_ids(standin)[0] == [session_id]


NESTED_JSON = b'{"x":' + b"[" * 2_000 + b"]" * 2_000 + b"}"
INVALID_ARGUMENT = (400, "invalid_argument")
RESOURCE_EXHAUSTED = (429, "resource_exhausted")
UNAVAILABLE = (503, "unavailable")


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "expected"),
    [
        (
            *(encode_request(encode_start(FULL_ATTRIBUTES), session_id=MARKER), PROTO, {}),
            (*INVALID_ARGUMENT, "distinct_id"),
        ),
        (encode_request(None), PROTO, {}, (*INVALID_ARGUMENT, "event")),
        (
            *(encode_request(field(6, -1)), PROTO, {}),
            (*INVALID_ARGUMENT, "start.destinations_other"),
        ),
        (MARKER.encode(), PROTO, {}, (*INVALID_ARGUMENT, "the body")),
        (
            *(encode_json_request({"version": 18, "joinType": MARKER}), JSON, {}),
            (*INVALID_ARGUMENT, "the body"),
        ),
        (NESTED_JSON, JSON, {}, (*INVALID_ARGUMENT, "the body")),
        (NESTED_JSON * 2, JSON, {}, (*RESOURCE_EXHAUSTED, "message")),
        (bytes(MAX_REQUEST_BYTES + 1), PROTO, {}, (*RESOURCE_EXHAUSTED, "message")),
        (
            *(gzip.compress(bytes(10**8)), PROTO, {"Content_Encoding": "gzip"}),
            (*RESOURCE_EXHAUSTED, "message"),
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
    """An invalid request is refused. The response names the field, and nothing repeats a value."""
    status, code, text = relay.post(body, content_type, **headers)
    assert (status, code) == expected[:2]
    assert text.startswith(expected[2])
    assert MARKER not in text + relay.output()


def test_group_commit(tmp_path: Path) -> None:
    """The first report is exported at once, and those that arrive meanwhile share an export."""
    first, *others = session_ids = [new_session_id() for _ in range(200)]
    setup = gated_setup(max_concurrent_calls=len(session_ids))
    with (
        GatedStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup, **GATED_ENVIRON) as relay,
        concurrently(partial(relay.report, first)) as first_results,
    ):
        wait_until(lambda: standin.requests)
        with concurrently(
            *(partial(report_until_admitted, relay, session_id) for session_id in others)
        ) as results:
            wait_until(lambda: is_full(relay))
            standin.gate.set()
        assert {result.result() for result in first_results + results} == {(200, "")}
        exports = exported_session_ids(standin)
        assert exports[0] == [first]
        # A few can arrive too late for the second export.
        assert len(exports) <= 4
        assert sorted(chain(*exports)) == sorted(session_ids)


@pytest.mark.parametrize(
    ("response", "error", "problem"),
    [
        (Response(400), INVALID_ARGUMENT, "the Collector responded with 400"),
        (
            Response(200, b"hello", {"Content-Type": "text/plain"}),
            UNAVAILABLE,
            "the response is not from an OTLP receiver",
        ),
    ],
    ids=["refused", "not a receiver"],
)
def test_each_call_gets_its_own_result(
    tmp_path: Path, response: Response, error: tuple[int, str], problem: str
) -> None:
    """The response to a call depends on its own export, and not on the next one."""
    setup = gated_setup(max_concurrent_calls=6)
    with (
        GatedStandin(response, Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup, **GATED_ENVIRON) as relay,
        concurrently(partial(relay.post, REPORT)) as first_results,
    ):
        wait_until(lambda: standin.requests)
        with concurrently(*[partial(report_until_admitted, relay)] * 5) as results:
            wait_until(lambda: is_full(relay))
            standin.gate.set()
        # Those with other attributes than the rejected one share an export.
        assert [result.result() for result in results] == [(200, "")] * 5
        assert first_results[0].result()[:2] == error
        assert problem in first_results[0].result()[2]


def test_partial_success_over_grpc(tmp_path: Path) -> None:
    """A report that the Collector rejects over gRPC is not acknowledged.

    The compression none is accepted, which the official exporter of metrics rejects.
    """
    environ = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_METRICS_EXPORTER": "otlp",
    }
    with (
        GRPCStandin(body=REJECTED) as standin,
        running_relay(tmp_path, standin.endpoint, **environ) as relay,
    ):
        status, code, text = relay.post(REPORT)
    assert (status, code) == INVALID_ARGUMENT
    assert "rejected 1 of the records" in text


METRICS = {
    "tbot_otel.relay.calls",
    "tbot_otel.relay.call.duration",
    "tbot_otel.relay.calls.in_flight",
    "tbot_otel.relay.queue.size",
    "tbot_otel.relay.export.size",
    "tbot_otel.relay.export.duration",
    "tbot_otel.relay.ready",
    # Of the main process.
    "tbot_otel.relay.reloads",
    "tbot_otel.relay.worker.crashes",
}


def test_privacy(tmp_path: Path) -> None:
    """Nothing about a caller or from a refused report is exported, logged or measured."""
    source = "127.0.0.77"
    session_ids = [new_session_id() for _ in range(3)]
    with (
        HTTPStandin(Response(404), Response()) as standin,
        running_relay(
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
        attributes = {
            **FULL_ATTRIBUTES,
            "tbot.join_type": MARKER,
            "tbot.helper": f"{MARKER}.example.com",
        }
        statuses = [
            relay.post(
                encode_request(encode_start(attributes), session_id=session_id),
                path=f"{PATH}?x={MARKER}",
                source=source,
                **headers,
            )[0]
            for session_id in session_ids
        ]
        assert statuses == [503, 200, 200]
        refused = encode_request(encode_start(FULL_ATTRIBUTES), session_id=MARKER)
        assert relay.post(refused, source=source, **headers)[0] == 400
        assert relay.post(refused, path=f"/{MARKER}", source=source, **headers)[0] == 404
        assert relay.stop() == 0
        output = relay.output()
    assert exported_session_ids(standin) == [[session_id] for session_id in session_ids]
    for identifying in (MARKER, source, "ab" * 16):
        assert identifying not in output
        assert identifying not in repr(standin.requests)
    assert not any(session_id in output for session_id in session_ids)
    assert not any(
        b"relay.example" in request.body
        for request in standin.requests
        if request.path == "/v1/logs"
    )


def test_metrics(tmp_path: Path) -> None:
    """With OTEL_METRICS_EXPORTER=otlp, the relay exports its metrics, by status and problem."""
    with (
        HTTPStandin(Response(404), Response()) as standin,
        running_relay(
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
    points = exported_points(standin)
    assert set(points) == METRICS
    calls = points["tbot_otel.relay.calls"]
    assert calls == {
        (("http.response.status_code", 200),): 3,
        (("http.response.status_code", 503), ("error.type", "unavailable")): 1,
        (("http.response.status_code", 400), ("error.type", "400")): 1,
        (("http.response.status_code", 415), ("error.type", "415")): 1,
        (("http.response.status_code", 499), ("error.type", "disconnected")): 1,
    }
    durations = points["tbot_otel.relay.call.duration"]
    assert {attributes: count for attributes, (count, _) in durations.items()} == {
        attributes[:1]: count for attributes, count in calls.items()
    }
    assert points["tbot_otel.relay.queue.size"] == {(): 0}
    assert points["tbot_otel.relay.ready"] == {(): 1}
    assert points["tbot_otel.relay.reloads"] == {(): 0, (("error.type", "invalid"),): 0}
    assert points["tbot_otel.relay.worker.crashes"] == {(): 0}
    resource = attribute_values(
        MessageToDict(exported_metrics(standin)[-1].resource_metrics[0].resource)["attributes"]
    )
    assert resource["service.name"] == "tbot-otel-relay"
    assert "service.instance.id" in resource
    # The client that disconnected is not counted anymore.
    assert points["tbot_otel.relay.calls.in_flight"] == {(): 0}
    size = points["tbot_otel.relay.export.size"]
    assert size == {(("error.type", "unavailable"),): (1, 1), (): (3, 3)}
    assert set(points["tbot_otel.relay.export.duration"]) == set(size)


LOG_LINE = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 tbot-otel relay\[\d+\]: (INFO|WARNING): .+"
)


@pytest.mark.parametrize(("protocol", "workers"), [("http/protobuf", 2), ("grpc", 1)])
def test_log(protocol: str, workers: int, tmp_path: Path) -> None:
    """The log has a line for each change of the result, and no value of a variable."""
    standin: HTTPStandin | GRPCStandin
    if protocol == "grpc":
        standin = GRPCStandin(*["INVALID_ARGUMENT"] * 3, "OK")
        problem = "the Collector did not accept the export (INVALID_ARGUMENT)"
    else:
        standin = HTTPStandin(*[Response(400)] * 3, Response())
        problem = "the Collector responded with 400"
    with (
        standin,
        running_relay(
            tmp_path,
            f"{standin.endpoint}/",
            *("--workers", str(workers)),
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_HEADERS=f"api-key={MARKER}",
        ) as relay,
    ):
        statuses = [relay.report()[0] for _ in range(40)]
        lines = relay.output().splitlines()
        pids = relay.worker_pids()
    assert statuses == [400] * 3 + [200] * 37
    assert [line for line in lines if not re.fullmatch(LOG_LINE, line)] == []
    assert {int(line.split("[")[1].split("]")[0]) for line in lines} == pids
    messages = [line.split(": ", 2)[2] for line in lines]
    listening = f"listens on http://{relay.host}:{relay.port}, exports to {standin.endpoint}/"
    assert [message.startswith(listening) for message in messages].count(True) == workers
    changes = [message for message in messages if message.startswith("the Collector")]
    # A worker that exports for the first time repeats no line of the other.
    assert changes == [
        f"the Collector does not accept exports: {problem}",
        "the Collector accepts exports",
    ]
    assert MARKER not in relay.output()


def test_ready(make_collector: MakeCollector, tmp_path: Path) -> None:
    """The relay is ready while the Collector accepts exports, also after an interruption."""
    port = free_port()
    environ = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with running_relay(tmp_path, f"http://127.0.0.1:{port}", **environ) as relay:
        for _ in range(2):
            assert relay.get("/healthz") == (200, "ok")
            assert relay.get("/readyz")[0] == 503
            assert relay.report() == (503, "unavailable")
            with make_collector(tmp_path, port).running():
                wait_until(lambda: relay.get("/readyz") == (200, "ok"))
                assert relay.report() == (200, "")
            # The last export was accepted, and there was none since.
            assert relay.get("/readyz") == (200, "ok")
            assert relay.report() == (503, "unavailable")


def test_many_probes(tmp_path: Path) -> None:
    """However many ask, the Collector is probed once a second, and no report waits for it."""
    setup = override_constants("tbot_otel.relay.readiness", PROBE_INTERVAL_SECONDS=3600)
    with (
        HTTPStandin(Response(503), Response(404)) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup) as relay,
    ):
        with concurrently(*[partial(relay.get, "/readyz")] * 50) as probes:
            pass
        problems = {probe.result() for probe in probes}
        assert len(standin.requests) == 1
        assert problems == {(503, "not ready")}
        assert relay.report() == (503, "unavailable")
        assert relay.get("/readyz") == (503, "not ready")
        assert len(standin.requests) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_stop(tmp_path: Path, number: signal.Signals) -> None:
    """On a signal, the relay stops listening, responds to the calls in flight, and exits with 0."""
    setup = gated_setup(max_concurrent_calls=11)
    with (
        GatedStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, setup=setup, **GATED_ENVIRON) as relay,
        concurrently(relay.report) as first_results,
    ):
        wait_until(lambda: standin.requests)
        with concurrently(*[partial(report_until_admitted, relay)] * 10) as results:
            wait_until(lambda: is_full(relay))
            relay.process.send_signal(number)
            wait_until(lambda: not relay.listens())
            assert relay.process.poll() is None
            standin.gate.set()
        assert {result.result() for result in [*first_results, *results]} == {(200, "")}
        assert relay.process.wait(WAIT_SECONDS) == 0
        assert sum(map(len, exported_session_ids(standin))) == 11


def test_workers(tmp_path: Path) -> None:
    """Workers share the calls, and a worker that is killed is replaced, without a warning."""
    with (
        HTTPStandin(Response()) as standin,
        running_relay(
            tmp_path, standin.endpoint, "--workers", "2", PYTHONWARNINGS="always"
        ) as relay,
    ):
        before = relay.worker_pids()
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(relay.worker_pids() - before) == 1 and len(relay.worker_pids()) == 2)
        wait_until(lambda: relay.started_worker_count() == 3)
        session_ids = [new_session_id() for _ in range(20)]
        assert {relay.report(session_id) for session_id in session_ids} == {(200, "")}
        assert sorted(chain(*exported_session_ids(standin))) == sorted(session_ids)
    # Python 3.12 and later warn of a fork in a process that has threads.
    assert "Warning" not in relay.output()


def test_workers_that_keep_dying(tmp_path: Path) -> None:
    """If a worker dies again within seconds, the relay exits with 1."""
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint) as relay,
    ):

        def has_exited() -> bool:
            for pid in relay.worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return relay.process.poll() is not None

        wait_until(has_exited)
        assert relay.process.returncode == 1


def test_main_process_killed(tmp_path: Path) -> None:
    """A worker ends when the main process is killed, so that the port is free."""
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint) as relay,
    ):
        relay.process.kill()
        relay.process.wait()
        wait_until(lambda: not relay.listens())


SECRETS = ("0123456789abcdef-old", "0123456789abcdef-new")


def test_reload(tmp_path: Path) -> None:
    """SIGHUP changes a valid secret and certificate. No call is refused meanwhile."""
    secret_file, authority = tmp_path / "secret", trustme.CA()
    old, new = SECRETS
    serial_numbers = [write_certificate(tmp_path, authority)]
    secret_file.write_text(f"{old}\n")
    secret_file.chmod(0o640)
    options = [f"--path-secret-file={secret_file}"]
    options += [f"--tls-cert={tmp_path / 'cert'}", f"--tls-key={tmp_path / 'key'}"]
    stop = threading.Event()
    results: list[tuple[int, str]] = []

    def call_until_stopped() -> None:
        while not stop.wait(0.1):
            try:
                results.append(report_over_tls(relay, old, authority))
            except (OSError, http.client.HTTPException):
                # The worker that stops closes the connections whose call it has not begun to read.
                continue

    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, *options, OTEL_METRICS_EXPORTER="otlp") as relay,
    ):
        assert "other users" not in relay.output()
        secret_file.unlink()
        os.mkfifo(secret_file)
        relay.process.send_signal(signal.SIGHUP)
        problem = "keeping the old secrets and certificate: --path-secret-file: expected a file\n"
        wait_until(lambda: f"reload failed, {problem}" in relay.output())
        secret_file.unlink()
        secret_file.write_text(f"{old}\n{new}\n")
        serial_numbers.append(write_certificate(tmp_path, authority))
        with concurrently(*[call_until_stopped] * 4) as calls:
            try:
                relay.reload()
                wait_until(lambda: serial_numbers[1] in {number for _, number in results})
            finally:
                stop.set()
        for call in calls:
            call.result()
        assert {status for status, _ in results} == {200}
        assert {serial_number for _, serial_number in results} == {*serial_numbers}
        assert report_over_tls(relay, new, authority) == (200, serial_numbers[1])
        assert relay.stop() == 0
        reloads = exported_points(standin)["tbot_otel.relay.reloads"]
        assert reloads == {(): 1, (("error.type", "invalid"),): 1}
        of_new = (("http.response.status_code", 200), ("tbot_otel.relay.secret.line", 2))
        assert exported_points(standin)["tbot_otel.relay.calls"][of_new] == 1


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
# The options and variables, and how the message begins.
USAGE_ERRORS: list[tuple[list[str], dict[str, str], str]] = [
    *(
        (["--listen", value], {}, "argument --listen: expected HOST:PORT")
        for value in ("", "8126", ":8126", "x:0", "x:65536", "::1:8126", f"{MARKER}:x", "[::1]")
    ),
    (["--listen", f"{MARKER}.invalid:8126"], {}, "--listen: no such host"),
    (["--listen", "192.0.2.1:8126"], {}, "--listen: Cannot assign requested address"),
    *(
        (["--workers", value], {}, "argument --workers: expected a number from 1 to 999")
        for value in ("0", "-1", "1000", "1.5", MARKER)
    ),
    (["--tls-cert", "x"], {}, "--tls-cert, --tls-key: expected both or neither"),
    (["--tls-key", "x"], {}, "--tls-cert, --tls-key: expected both or neither"),
    (["--tls-cert", MARKER, "--tls-key", MARKER], {}, "--tls-cert, --tls-key: No such file"),
    (["--tls-cert", "text", "--tls-key", "text"], {}, "--tls-cert, --tls-key: expected PEM"),
    (["--tls-cert", "text", "--tls-key", "pipe"], {}, "--tls-cert, --tls-key: expected a file"),
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
    *(
        (
            *([], {"OTEL_EXPORTER_OTLP_PROTOCOL": value}),
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or grpc",
        )
        for value in (MARKER, "http/json")
    ),
    (
        *([], {"OTEL_EXPORTER_OTLP_TIMEOUT": MARKER}),
        "OTEL_EXPORTER_OTLP_TIMEOUT: expected seconds",
    ),
    (
        *([], {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": MARKER}),
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: expected http/protobuf or grpc",
    ),
    *(
        (
            [],
            {
                "OTEL_METRICS_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
                f"OTEL_EXPORTER_OTLP_METRICS_{name}": MARKER,
            },
            "metrics protocol grpc: the exporter rejects its OTEL_EXPORTER_OTLP_* variables",
        )
        for name in ("COMPRESSION", "TIMEOUT")
    ),
]
# Each case is a process, which has the imports of its parent and does not clean them up.
RUN_ALL = """
import json, os, pathlib, signal, sys
import tbot_otel.relay.server
from tbot_otel.cli import main
for number, (options, environ) in enumerate(json.loads(pathlib.Path("cases").read_text())):
    if not os.fork():
        signal.alarm(60)
        for fd in (1, 2):
            os.dup2(os.open(f"{number}-{fd}", os.O_CREAT | os.O_WRONLY), fd)
        os.environ |= environ
        status = 0
        try:
            main(["relay", *options])
        except SystemExit as error:
            status = error.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_usage_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid option or variable is one line that repeats no value, and status 2."""
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("too-short")
    Path("text").write_text(f"a secret with spaces, {MARKER}")
    Path("latin").write_bytes(b"\xff" * 20)
    os.mkfifo("pipe")
    with silent_port() as port:
        in_use = ["--listen", f"127.0.0.1:{port}"]
        errors = [*USAGE_ERRORS, (in_use, {}, "--listen: Address already in use")]
        listen = ["--listen", f"127.0.0.1:{free_port()}"]
        cases = [([*listen, *options], ENDPOINT | environ) for options, environ, _ in errors]
        Path("cases").write_text(json.dumps(cases))
        done = run_python("-c", RUN_ALL, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    statuses = done.stdout.split()
    for number, (options, environ, problem) in enumerate(errors):
        output, text = (Path(f"{number}-{fd}").read_text() for fd in (1, 2))
        case = (options, environ, text)
        assert (statuses[number], output, text.count("\n")) == ("2", "", 1), case
        assert text.startswith(f"tbot-otel relay: {problem}"), case
        assert MARKER not in text, case


def test_missing_extra() -> None:
    """Without the extra, the relay names it and exits with 2."""
    script = """
import sys
from tbot_otel.cli import main
for missing in ("granian", "uvloop", "connectrpc"):
    sys.modules[missing] = None
    try:
        main(sys.argv[1:])
    except SystemExit as error:
        print(error.code)
    del sys.modules[missing]
"""
    listen = f"127.0.0.1:{free_port()}"
    done = run_python("-c", script, "relay", "--listen", listen, timeout=60, **ENDPOINT)
    problem = "tbot-otel relay: needs the extra 'relay': pip install 'tbot-otel[relay]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n" * 3, problem * 3)
