"""The examples of `tbot-otel relay`, run as on their hosts."""

import copy
import gzip
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from support import agent
from support.cases import FULL_ATTRIBUTES
from support.collectors import Official
from support.messages import new_session_id
from support.otlp import attribute_values
from support.processes import WAIT_SECONDS, free_port, wait_until
from support.relay_examples import (
    COMMAND,
    ENDPOINT_VARIABLE,
    EXAMPLES,
    PROBE_PATHS,
    SECRET,
    Server,
    collector_server,
    read_example,
    relay_server,
    report_start,
)
from support.standins import HTTPStandin, Response
from support.starts import permit
from tbot_otel.connect import PATH, Report
from tbot_otel.registry import RESOURCE, START
from tbot_otel.relay.batch import ReportBatch
from tbot_otel.relay.server import SHUTDOWN_TIMEOUT_SECONDS


def test_edge(official_binary: Path, tmp_path: Path) -> None:
    """Starts acknowledged while the gateway is down are delivered after the edge's restarts."""
    gateway = Official(official_binary, tmp_path)
    port = free_port()
    replacements = {
        ":4318\nexporters": f":{port}\nexporters",
        "https://gateway.example.com:4318": gateway.endpoint("http/protobuf"),
        "/var/lib/otelcol/queue": str(tmp_path / "queue"),
    }
    edge = collector_server(official_binary, tmp_path, "edge.yaml", port, replacements)
    server = relay_server(f"http://localhost:{port}")
    acknowledged = []

    def report() -> bool:
        session_id, code = report_start(server)
        acknowledged.extend([session_id] if code == "ok" else [])
        return code == "ok"

    with server.running(tmp_path / "relay.log"):
        for number, end_signal in enumerate((signal.SIGTERM, signal.SIGKILL)):
            with edge.running(tmp_path / f"edge-{number}.log") as process:
                # The relay may find a connection that has ended with the edge before.
                wait_until(report)
                assert report()
                process.send_signal(end_signal)
                process.wait(WAIT_SECONDS)
    with gateway.running(), edge.running(tmp_path / "edge-again.log"):
        for session_id in acknowledged:
            gateway.find(session_id)
        assert len(gateway.resources()) == len(acknowledged) == 4


class MetricPoint(NamedTuple):
    """A data point with its request, Resource and metric."""

    request: int
    resource: dict[str, object]
    metric: str
    temporality: str
    attributes: dict[str, object]
    value: int


def received_points(backend: HTTPStandin) -> list[MetricPoint]:
    """The data points that a backend has received."""
    messages = [
        MessageToDict(ExportMetricsServiceRequest.FromString(gzip.decompress(request.body)))
        for request in list(backend.requests)
    ]
    return [
        MetricPoint(
            number,
            attribute_values(of_resource["resource"]["attributes"]),
            metric["name"],
            metric["sum"]["aggregationTemporality"],
            attribute_values(point["attributes"]),
            int(point["asInt"]),
        )
        for number, message in enumerate(messages)
        for of_resource in message["resourceMetrics"]
        for of_scope in of_resource["scopeMetrics"]
        for metric in of_scope["metrics"]
        for point in metric["sum"]["dataPoints"]
    ]


def test_counts(official_binary: Path, tmp_path: Path) -> None:
    """Starts become one cumulative count per run mode, join method and version."""
    port = free_port()
    server = relay_server(f"http://localhost:{port}")
    now = time.time_ns()
    with HTTPStandin(Response()) as backend:
        replacements = {
            ":4318": f":{port}",
            "https://prometheus.example.com": backend.endpoint,
        }
        counts = collector_server(official_binary, tmp_path, "counts.yaml", port, replacements)
        with counts.running(tmp_path / "counts.log"), server.running(tmp_path / "relay.log"):
            for age in range(3):
                # Later requests have earlier times.
                reports = [
                    Report(new_session_id(), now - age * 10**11 - number, permit(FULL_ATTRIBUTES))
                    for number in range(50)
                ]
                message = ReportBatch(reports).encode()
                message.resource_logs[0].scope_logs[0].log_records[0].event_name = "other"
                message.resource_logs[1].scope_logs[0].scope.name = "other"
                content = message.SerializeToString()
                # In parallel, as from several relays.
                with ThreadPoolExecutor(8) as pool:
                    responses = [
                        pool.submit(counts.request, "/v1/logs", content, "application/x-protobuf")
                        for _ in range(40)
                    ]
                assert {response.result() for response in responses} == {200}
                assert report_start(server)[1] == "ok"
                # Wait for this count before the next requests.
                count = 40 * 48 * (age + 1)
                wait_until(lambda: count in [point.value for point in received_points(backend)])  # noqa: B023
    received = received_points(backend)
    assert {request.path for request in backend.requests} == {"/api/v1/otlp/v1/metrics"}
    assert {(point.metric, point.temporality) for point in received} == {
        ("tbot.starts", "AGGREGATION_TEMPORALITY_CUMULATIVE")
    }
    assert all(point.resource == {"service.name": "tbot"} for point in received)
    # A backend keeps only one point per time and series.
    series = [(point.request, frozenset(point.attributes.items())) for point in received]
    assert len(series) == len(set(series))
    last = {frozenset(point.attributes.items()): point.value for point in received}
    reported = {"tbot.run_mode": "one-shot", "tbot.join_type": "github", "tbot.version": "18.3.0"}
    assert last == {
        frozenset((name, FULL_ATTRIBUTES[name]) for name in reported): 3 * 40 * 48,
        frozenset(reported.items()): 3,
    }


RECORD = "scopeLogs.0.logRecords.0."
MARKER_VALUE = {"stringValue": "MARKER"}
FOREIGN_ATTRIBUTES = [{"key": "host.name", "value": MARKER_VALUE}]
# Differences that make a record something other than a `tbot.start` of tbot-otel.
DROPPED_CHANGES: dict[str, object] = {
    RECORD + "eventName": "tbot.stop",
    "scopeLogs.0.scope.name": "other",
    "resource.attributes.0.value": MARKER_VALUE,
    RECORD + "body": MARKER_VALUE,
    RECORD + "traceId": "0af7651916cd43dd8448eb211c80319c",
    RECORD + "spanId": "b7ad6b7169203331",
}
# Additions that are removed from a start.
CLEANED_CHANGES: dict[str, object] = {
    "resource.attributes.+": FOREIGN_ATTRIBUTES,
    RECORD + "attributes.+": FOREIGN_ATTRIBUTES,
    "scopeLogs.0.scope.attributes": FOREIGN_ATTRIBUTES,
    "scopeLogs.0.schemaUrl": "MARKER",
    "schemaUrl": "MARKER",
    RECORD + "severityText": "MARKER",
}


def start_with(session_id: str, path: str = "", value: object = None) -> dict[str, Any]:
    """A start with all attributes of the registry, as OTLP/JSON, with one change."""
    message = ReportBatch([Report(session_id, time.time_ns(), permit(FULL_ATTRIBUTES))]).encode()
    (start,) = MessageToDict(message, use_integers_for_enums=True)["resourceLogs"]
    for name in ("os.type", "host.arch"):
        start["resource"]["attributes"].append({"key": name, "value": {"stringValue": "example"}})
    node: Any = start
    *steps, last = path.split(".")
    for step in steps:
        node = node[int(step) if step.isdigit() else step]
    if last == "+":
        node.extend(value)
    elif last:
        node[last] = value
    return copy.deepcopy(start)


def test_only_starts(official: Official, official_binary: Path, tmp_path: Path) -> None:
    """Other records are dropped, and a start keeps only the registry's attributes."""
    port = free_port()
    replacements = {
        ":4318\nprocessors": f":{port}\nprocessors",
        "https://gateway.example.com:4318": official.endpoint("http/protobuf"),
    }
    filtering = collector_server(official_binary, tmp_path, "only-starts.yaml", port, replacements)
    dropped = {new_session_id(): change for change in DROPPED_CHANGES.items()}
    kept = {new_session_id(): change for change in [("", None), *CLEANED_CHANGES.items()]}
    sent = [start_with(session_id, *change) for session_id, change in (dropped | kept).items()]
    content = json.dumps({"resourceLogs": sent})
    with filtering.running(tmp_path / "only-starts.log"):
        # The Collector exports it as one request, too.
        assert filtering.request("/v1/logs", content.encode(), "application/json") == 200
        passed = {session_id: official.find_json(session_id) for session_id in kept}
        received = json.dumps(official.resources())
    assert [path for session_id, (path, _) in dropped.items() if session_id in received] == []
    assert "MARKER" not in received
    unchanged = next(iter(passed.values()))
    assert attribute_values(unchanged["resource"]["attributes"]).keys() == {
        item.name for item in RESOURCE
    }
    (record,) = unchanged["scopeLogs"][0]["logRecords"]
    assert attribute_values(record["attributes"]) == FULL_ATTRIBUTES
    assert FULL_ATTRIBUTES.keys() == {attribute.name for attribute in START.attributes}


class Host(NamedTuple):
    """The folder, the Collector's endpoint and the port of a host that runs the relay."""

    folder: Path
    endpoint: str
    port: int

    @property
    def replacements(self) -> dict[str, str]:
        """The replacements in an example for this host."""
        return {"0.0.0.0:8126": f"127.0.0.1:{self.port}"}


def entry_point(host: Host) -> list[str]:
    """The command of the image."""
    lines = dict(
        re.findall(
            r"^([A-Z]+) (.*)$", read_example("Containerfile", host.replacements), re.MULTILINE
        )
    )
    words: list[str] = json.loads(lines["ENTRYPOINT"])
    assert shutil.which(words[0], path=str(COMMAND.parent))
    return [str(COMMAND), *words[1:]]


# With a read-only file system, where this machine permits that.
READ_ONLY = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
READ_ONLY += ['mount -o remount,bind,ro / && exec "$@"', "sh"]
if (
    not shutil.which("unshare")
    or subprocess.run([*READ_ONLY, "true"], capture_output=True, check=False).returncode
):
    READ_ONLY = []


def container_server(host: Host) -> Server:
    """The command of the image, with the variable that its user sets."""
    (host.folder / "path-secret").write_text(SECRET)
    secret = ["--path-secret-file", str(host.folder / "path-secret")]
    words = [*READ_ONLY, *entry_point(host), *secret]
    return Server(words, host.port, {ENDPOINT_VARIABLE: host.endpoint})


def manifests() -> dict[str, Any]:
    """The Kubernetes manifests, by kind."""
    return {
        manifest["kind"]: manifest
        for manifest in yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    }


def kubernetes_server(host: Host) -> Server:
    """The command of the Deployment, with its Secret."""
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (relay,) = pod["containers"]
    (mount,) = relay["volumeMounts"]
    (host.folder / "path-secret").write_text(SECRET)
    words = [word.replace(mount["mountPath"], str(host.folder)) for word in relay["args"]]
    environ = {variable["name"]: variable["value"] for variable in relay["env"]}
    assert environ.keys() == {ENDPOINT_VARIABLE}
    return Server([*entry_point(host), *words], host.port, {ENDPOINT_VARIABLE: host.endpoint})


def unit_server(host: Host) -> Server:
    """The command of the unit, as systemd starts it."""
    replacements = {
        "/opt/tbot-otel/bin": str(COMMAND.parent),
        "/etc/tbot-otel": str(host.folder / "etc"),
        "127.0.0.1:8126": f"127.0.0.1:{host.port}",
        "http://localhost:4318": host.endpoint,
    }
    text = read_example("tbot-otel-relay.service", replacements)
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    name, _, source = settings["LoadCredential"].partition(":")
    (host.folder / "etc").mkdir()
    Path(source).write_text(SECRET)
    shutil.copy(source, host.folder / name)
    command = settings["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", str(host.folder))
    variable, _, value = settings["Environment"].partition("=")
    return Server(shlex.split(command), host.port, {variable: value})


@pytest.mark.parametrize("make", [container_server, kubernetes_server, unit_server])
def test_hosts(make: Callable[[Host], Server], official: Official, tmp_path: Path) -> None:
    """Each relay responds to probes, exports a start, and exits with 0 on SIGTERM."""
    server = make(Host(tmp_path, official.endpoint("http/protobuf"), free_port()))
    with server.running(tmp_path / "relay.log") as process:
        assert [server.request(path) for path in PROBE_PATHS] == [200, 200]
        message = agent.build_request(new_session_id(), oneshot=True)
        assert server.request(PATH, message, "application/proto") == 404
        session_id, code = report_start(server, f"/{SECRET}")
        assert code == "ok"
        official.find_json(session_id)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SHUTDOWN_TIMEOUT_SECONDS + WAIT_SECONDS) == 0


# These need programs or permissions that a machine may lack.
if shutil.which("systemd-analyze"):

    @pytest.mark.parametrize(
        "words", [["verify", "--man=no"], ["security", "--offline=true", "--threshold=15"]]
    )
    def test_unit_is_valid(words: list[str], tmp_path: Path) -> None:
        """Systemd finds no problem in the unit, and little exposure."""
        unit = tmp_path / "tbot-otel-relay.service"
        unit.write_text(read_example(unit.name, {"/opt/tbot-otel/bin": str(COMMAND.parent)}))
        done = subprocess.run(
            ["systemd-analyze", *words, str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # It also prints problems of the machine's own units.
        assert [line for line in done.stderr.splitlines() if unit.name in line] == []
        assert done.returncode == 0
