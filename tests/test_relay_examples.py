"""The examples of `tbot-otel relay`: each runs as its host would run it, and does what it says."""

import contextlib
import copy
import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
import tomllib
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
import yaml
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

import agent
from cases import WHOLE
from collectors import PATIENCE, Answer, HTTPStandin, Official, Standin, free_port, plain, running
from tbot_otel.connect import PATH, Report
from tbot_otel.events import RESOURCE, START
from tbot_otel.relay.batch import Batch
from tbot_otel.relay.server import DRAIN_WITHIN
from test_run_examples import leaves

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "relay"
RELAY = Path(sysconfig.get_path("scripts")) / "tbot-otel"
COLLECTORS = {"counts.yaml", "edge.yaml", "gateway.yaml", "only-starts.yaml"}
HOSTS = {"Containerfile", "kubernetes.yaml", "tbot-otel-relay.service"}

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SECRET = "0123456789abcdef-SECRET"
PROBES = ["/healthz", "/readyz"]


def read(name: str, changes: Mapping[str, str]) -> str:
    """An example, changed as its first lines say; what is changed has to be in it."""
    text = (EXAMPLES / name).read_text()
    for shown, here in changes.items():
        assert shown in text
        text = text.replace(shown, here)
    return text


class Server(NamedTuple):
    """A command that serves on a port, and the variables that it has."""

    words: Sequence[str]
    port: int
    environ: Mapping[str, str] = {}

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run it until the block ends."""
        assignments = [f"{name}={value}" for name, value in self.environ.items()]
        with running(["env", *assignments, *self.words], log, self.port) as process:
            yield process

    def ask(self, path: str, content: bytes | None = None, content_type: str = "") -> int:
        """The status of a GET, or of a POST of some content."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, content, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code


def relay(endpoint: str, **environ: str) -> Server:
    """A relay that hands over to a Collector."""
    port = free_port()
    words = [str(RELAY), "relay", "--listen", f"127.0.0.1:{port}"]
    return Server(words, port, {ENDPOINT: endpoint, **environ})


def report(server: Server, prefix: str = "", *, oneshot: bool = True) -> tuple[str, str]:
    """Report a start, and return its session and the answer."""
    session = str(uuid.uuid4())
    message = agent.request(session, oneshot=oneshot)
    return session, agent.call_raw(f"http://127.0.0.1:{server.port}{prefix}", message)


def collector(
    binary: Path, folder: Path, name: str, port: int, changes: Mapping[str, str]
) -> Server:
    """The official Collector with an example of its configuration."""
    config = folder / name
    config.write_text(read(name, changes))
    # Its own metrics have one port, and here are several of it.
    quiet = "--set=service.telemetry.metrics.level=none"
    words = [str(binary), "--config", str(config), quiet]
    return Server(words, port, {"CLICKHOUSE_PASSWORD": "example"})


def test_all() -> None:
    """Every example is tested here, and begins with two lines of what it is and what to change."""
    assert {path.name for path in EXAMPLES.iterdir()} == COLLECTORS | HOSTS
    for path in EXAMPLES.iterdir():
        first, second, third = path.read_text().splitlines()[:3]
        assert first.startswith("# ")
        assert re.match("# .*Change ", second)
        assert not third.startswith("#")


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_edge(ended_by: signal.Signals, official_binary: Path, tmp_path: Path) -> None:
    """What was acknowledged while the gateway was down is delivered after the edge's restart."""
    gateway = Official(official_binary, tmp_path)
    port = free_port()
    changes = {
        ":4318\nexporters": f":{port}\nexporters",
        "https://gateway.example.com:4318": gateway.endpoint("http/protobuf"),
        "/var/lib/otelcol/queue": str(tmp_path / "queue"),
    }
    edge = collector(official_binary, tmp_path, "edge.yaml", port, changes)
    server = relay(f"http://localhost:{port}")
    with (
        edge.running(tmp_path / "edge.log") as process,
        server.running(tmp_path / "relay.log"),
    ):
        reported = [report(server) for _ in range(3)]
        process.send_signal(ended_by)
        process.wait(20)
    assert [answer for _, answer in reported] == ["ok"] * 3
    with gateway.running(), edge.running(tmp_path / "edge-again.log"):
        for session, _ in reported:
            gateway.find(session)
        assert len(gateway.resources()) == 3


class ClickHouse(HTTPStandin):
    """A stand-in for ClickHouse's HTTP interface: it has the tables that it was told to create."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.inserted: list[tuple[str, bytes]] = []
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                parameters = parse_qs(urlsplit(self.path).query)
                body = self._body()
                answer = b""
                if "query" in parameters:
                    standin.inserted.append((parameters["query"][0], body))
                elif body.startswith(b"CREATE"):
                    standin.created.append(body.decode())
                else:
                    revision = int(parameters["client_protocol_version"][0])
                    answer = native(standin.rows(body.decode(), revision))
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def _body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        # Without compression, to read what is inserted.
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}?compress=none"

    def rows(self, query: str, revision: int) -> dict[str, list[str | int]]:
        """The answer to a query, by columns."""
        if query.startswith("SELECT"):
            names = re.findall(r"\w+\(\)", query)
            return {name: [self._about(name, revision)] for name in names}
        # DESCRIBE TABLE: a name, a type, and five columns more.
        columns = re.findall(r"^ +`(\w+)` (.+?) COMMENT", self.created[-1], re.MULTILINE)
        described: dict[str, list[str | int]] = {
            "name": [name for name, _ in columns],
            "type": [kind for _, kind in columns],
        }
        return described | {f"unused{number}": [""] * len(columns) for number in range(5)}

    @staticmethod
    def _about(name: str, revision: int) -> str | int:
        known: dict[str, str | int] = {
            "version()": "25.8.1.1",
            "revision()": revision,
            "timezone()": "UTC",
        }
        return known.get(name, "")


def native(columns: Mapping[str, list[str | int]]) -> bytes:
    """A block in ClickHouse's format Native (https://clickhouse.com/docs/interfaces/formats/Native)."""

    def varint(number: int) -> bytes:
        result = b""
        while number > 127:
            result += bytes([number & 127 | 128])
            number >>= 7
        return result + bytes([number])

    def text(value: str) -> bytes:
        return varint(len(value.encode())) + value.encode()

    rows = len(next(iter(columns.values())))
    block = b"\x01\x00\x02\xff\xff\xff\xff\x00" + varint(len(columns)) + varint(rows)
    for name, values in columns.items():
        kind = "UInt32" if isinstance(values[0], int) else "String"
        block += text(name) + text(kind) + b"\x00"
        for value in values:
            block += value.to_bytes(4, "little") if isinstance(value, int) else text(value)
    return block


def test_gateway(official_binary: Path, tmp_path: Path) -> None:
    """A start is in ClickHouse and in the file, and a restart of the gateway keeps the file."""
    port = free_port()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    file = tmp_path / "starts" / "starts.jsonl"
    server = relay(
        f"https://localhost:{port}", OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "ca.crt")
    )
    with ClickHouse() as clickhouse:
        changes = {
            "0.0.0.0:4318": f"127.0.0.1:{port}",
            "/etc/otelcol": str(tmp_path),
            "/var/lib/otelcol": str(tmp_path),
            "http://clickhouse.example.com:8123": clickhouse.endpoint,
        }
        gateway = collector(official_binary, tmp_path, "gateway.yaml", port, changes)
        sessions = []
        for number in range(2):
            with (
                gateway.running(tmp_path / f"gateway-{number}.log"),
                server.running(tmp_path / f"relay-{number}.log"),
            ):
                session, answer = report(server)
                assert answer == "ok"
            sessions.append(session)
    database, table = clickhouse.created[:2]
    assert database.startswith('CREATE DATABASE IF NOT EXISTS "otel"')
    assert "`otel`.`tbot_starts`" in table
    for session, (query, block) in zip(sessions, clickhouse.inserted, strict=True):
        assert query.startswith("INSERT INTO `otel`.`tbot_starts`")
        assert "EventName" in query
        assert session.encode() in block
        assert b"tbot.start" in block
        assert session in file.read_text()


class Point(NamedTuple):
    """A metric's point, with what it is under."""

    request: int
    resource: dict[str, object]
    metric: str
    kind: str
    attributes: dict[str, object]
    value: int


def points(backend: Standin) -> list[Point]:
    """The points that a backend has received."""
    messages = [
        MessageToDict(ExportMetricsServiceRequest.FromString(gzip.decompress(request.body)))
        for request in list(backend.requests)
    ]
    return [
        Point(
            number,
            plain(of_resource["resource"]["attributes"]),
            metric["name"],
            metric["sum"]["aggregationTemporality"],
            plain(point["attributes"]),
            int(point["asInt"]),
        )
        for number, message in enumerate(messages)
        for of_resource in message["resourceMetrics"]
        for of_scope in of_resource["scopeMetrics"]
        for metric in of_scope["metrics"]
        for point in metric["sum"]["dataPoints"]
    ]


def test_counts(official_binary: Path, tmp_path: Path) -> None:
    """Starts come out as one growing number for each mode, method and version, and nothing else."""
    port = free_port()
    server = relay(f"http://localhost:{port}")
    now = time.time_ns()
    with Standin(Answer()) as backend:
        changes = {
            ":4318": f":{port}",
            "https://prometheus.example.com": backend.endpoint,
        }
        counts = collector(official_binary, tmp_path, "counts.yaml", port, changes)
        with counts.running(tmp_path / "counts.log"), server.running(tmp_path / "relay.log"):
            for age in range(3):
                # Those that come later happened earlier.
                reports = [
                    Report(str(uuid.uuid4()), now - age * 10**11 - number, WHOLE)
                    for number in range(50)
                ]
                message = Batch(reports).message()
                message.resource_logs[0].scope_logs[0].log_records[0].event_name = "other"
                message.resource_logs[1].scope_logs[0].scope.name = "other"
                content = message.SerializeToString()
                # As from several relays at a time.
                with ThreadPoolExecutor(8) as pool:
                    asked = [
                        pool.submit(counts.ask, "/v1/logs", content, "application/x-protobuf")
                        for _ in range(40)
                    ]
                assert {one.result() for one in asked} == {200}
                assert report(server)[1] == "ok"
                # Its number is told before the next are counted.
                deadline = time.monotonic() + PATIENCE
                while time.monotonic() < deadline and not any(
                    point.value == 40 * 48 * (age + 1) for point in points(backend)
                ):
                    time.sleep(0.05)
    received = points(backend)
    assert {request.path for request in backend.requests} == {"/api/v1/otlp/v1/metrics"}
    assert {(point.metric, point.kind) for point in received} == {
        ("tbot.starts", "AGGREGATION_TEMPORALITY_CUMULATIVE")
    }
    assert all(point.resource == {"service.name": "tbot"} for point in received)
    # A backend takes one of those that are of the same time.
    series = [(point.request, frozenset(point.attributes.items())) for point in received]
    assert len(series) == len(set(series))
    last = {frozenset(point.attributes.items()): point.value for point in received}
    mine = {"tbot.run_mode": "one-shot", "tbot.join_type": "github", "tbot.version": "18.3.0"}
    assert last == {
        frozenset((name, WHOLE[name]) for name in mine): 3 * 40 * 48,
        frozenset(mine.items()): 3,
    }


RECORD = "scopeLogs.0.logRecords.0."
STRING = {"stringValue": "MARKER"}
FOREIGN = [{"key": "host.name", "value": STRING}]
# What is not a start of ours: where it differs from one.
DROPPED: dict[str, object] = {
    RECORD + "eventName": "tbot.stop",
    "scopeLogs.0.scope.name": "other",
    "resource.attributes.0.value": STRING,
    RECORD + "body": STRING,
    RECORD + "traceId": "0af7651916cd43dd8448eb211c80319c",
    RECORD + "spanId": "b7ad6b7169203331",
}
# What is put on a start of ours, and does not go on with it.
CLEANED: dict[str, object] = {
    "resource.attributes.+": FOREIGN,
    RECORD + "attributes.+": FOREIGN,
    "scopeLogs.0.scope.attributes": FOREIGN,
    "scopeLogs.0.schemaUrl": "MARKER",
    "schemaUrl": "MARKER",
    RECORD + "severityText": "MARKER",
}


def start_with(session: str, path: str = "", value: object = None) -> dict[str, Any]:
    """A start with all that the registry names, as OTLP/JSON, and one thing changed."""
    message = Batch([Report(session, time.time_ns(), WHOLE)]).message()
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
    """Whatever is not a start of ours is dropped, and a start passes with the registry's alone."""
    port = free_port()
    changes = {
        ":4318\nprocessors": f":{port}\nprocessors",
        "https://gateway.example.com:4318": official.endpoint("http/protobuf"),
    }
    only = collector(official_binary, tmp_path, "only-starts.yaml", port, changes)
    theirs = {str(uuid.uuid4()): change for change in DROPPED.items()}
    ours = {str(uuid.uuid4()): change for change in [("", None), *CLEANED.items()]}
    sent = [start_with(session, *change) for session, change in (theirs | ours).items()]
    content = json.dumps({"resourceLogs": sent})
    with only.running(tmp_path / "only-starts.log"):
        # It leaves as one request, as it came.
        assert only.ask("/v1/logs", content.encode(), "application/json") == 200
        passed = {session: official.find(session) for session in ours}
        received = json.dumps(official.resources())
    assert [path for session, (path, _) in theirs.items() if session in received] == []
    assert "MARKER" not in received
    whole = next(iter(passed.values()))
    assert plain(whole["resource"]["attributes"]).keys() == {item.name for item in RESOURCE}
    (record,) = whole["scopeLogs"][0]["logRecords"]
    assert plain(record["attributes"]) == WHOLE
    assert WHOLE.keys() == {attribute.name for attribute in START.attributes}


class Host(NamedTuple):
    """How a host runs the relay: its command, and where its probes and agents reach it."""

    folder: Path
    endpoint: str
    port: int

    @property
    def changes(self) -> dict[str, str]:
        """What is another here."""
        return {"0.0.0.0:8126": f"127.0.0.1:{self.port}"}


def entry_point(host: Host) -> list[str]:
    """The image's process."""
    lines = dict(re.findall(r"^([A-Z]+) (.*)$", read("Containerfile", host.changes), re.MULTILINE))
    words: list[str] = json.loads(lines["ENTRYPOINT"])
    assert shutil.which(words[0], path=str(RELAY.parent))
    return [str(RELAY), *words[1:]]


def container(host: Host) -> Server:
    """The image's process with the variable that its user gives to it."""
    (host.folder / "path-secret").write_text(SECRET)
    words = [*entry_point(host), "--path-secret-file", str(host.folder / "path-secret")]
    return Server(words, host.port, {ENDPOINT: host.endpoint})


def manifests() -> dict[str, Any]:
    """The manifests, by their kinds."""
    return {
        manifest["kind"]: manifest
        for manifest in yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    }


def kubernetes(host: Host) -> Server:
    """The container of the Deployment, with its Secret mounted."""
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (relay,) = pod["containers"]
    (mount,) = relay["volumeMounts"]
    (host.folder / "path-secret").write_text(SECRET)
    words = [word.replace(mount["mountPath"], str(host.folder)) for word in relay["args"]]
    environ = {variable["name"]: variable["value"] for variable in relay["env"]}
    assert environ.keys() == {ENDPOINT}
    return Server([*entry_point(host), *words], host.port, {ENDPOINT: host.endpoint})


def unit(host: Host) -> Server:
    """The unit's command, as systemd starts it."""
    changes = {
        "/opt/tbot-otel/bin": str(RELAY.parent),
        "/etc/tbot-otel": str(host.folder / "etc"),
        "127.0.0.1:8126": f"127.0.0.1:{host.port}",
        "http://localhost:4318": host.endpoint,
    }
    text = read("tbot-otel-relay.service", changes)
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    name, _, source = settings["LoadCredential"].partition(":")
    (host.folder / "etc").mkdir()
    Path(source).write_text(SECRET)
    shutil.copy(source, host.folder / name)
    command = settings["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", str(host.folder))
    variable, _, value = settings["Environment"].partition("=")
    return Server(shlex.split(command), host.port, {variable: value})


@pytest.mark.parametrize("make", [container, kubernetes, unit])
def test_hosts(make: Callable[[Host], Server], official: Official, tmp_path: Path) -> None:
    """Each host's relay answers probes, hands a start over, and ends well when it is stopped."""
    server = make(Host(tmp_path, official.endpoint("http/protobuf"), free_port()))
    with server.running(tmp_path / "relay.log") as process:
        assert [server.ask(path) for path in PROBES] == [200, 200]
        message = agent.request(str(uuid.uuid4()), oneshot=True).to_binary()
        assert server.ask(PATH, message, "application/proto") == 404
        session, answer = report(server, f"/{SECRET}")
        assert answer == "ok"
        official.find(session)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DRAIN_WITHIN + 5) == 0


def test_container_image() -> None:
    """The image has the relay's extra, and a user who is not root."""
    lines = dict(re.findall(r"^([A-Z]+) (.*)$", read("Containerfile", {}), re.MULTILINE))
    *_, installed = shlex.split(lines["RUN"])
    name, extra = re.findall(r"[\w-]+", installed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (name, extra) == (project["name"], "relay")
    assert extra in project["optional-dependencies"]
    assert re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", lines["USER"])
    assert json.loads(lines["ENTRYPOINT"])[-1].endswith(":" + lines["EXPOSE"])


def test_kubernetes_fits_together() -> None:
    """Service, autoscaler and budget mean the Deployment's Pods, of which there are several."""
    kinds = manifests()
    deployment, service, scaler, budget = (
        kinds.pop(kind)
        for kind in ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget")
    )
    assert not kinds
    name = deployment["metadata"]["name"]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    selector = {"matchLabels": labels}
    assert [deployment["spec"]["selector"], spread["labelSelector"]] == [selector] * 2
    # Every field of what no program here knows the fields of.
    assert service["spec"] == {
        "selector": labels,
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
    }
    assert budget["spec"] == {"maxUnavailable": 1, "selector": selector}
    assert "replicas" not in deployment["spec"]
    use = {"type": "Utilization", "averageUtilization": 60}
    assert scaler["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        # With one, the budget would keep a node from being drained.
        "minReplicas": 3,
        "maxReplicas": 20,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": use}}],
    }


def test_kubernetes_pod() -> None:
    """The Pod is asked by the probes, may drain, and can write nothing and become nobody."""
    kinds = manifests()
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (relay,) = pod["containers"]
    (port,) = relay["ports"]
    asked = [relay[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    assert asked == [{"path": path, "port": port["name"]} for path in PROBES]
    assert kinds["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert f"0.0.0.0:{port['containerPort']}" in read("Containerfile", {})
    pause = relay["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + DRAIN_WITHIN
    assert pod["securityContext"]["runAsNonRoot"] is True
    # What the Secret's file may be read by.
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert pod["automountServiceAccountToken"] is False
    assert relay["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    # The autoscaler's percentage is of what is requested.
    assert relay["resources"]["requests"].keys() == {"cpu", "memory"}
    assert relay["resources"]["limits"].keys() == {"memory"}
    assert [mount["name"] for mount in relay["volumeMounts"]] == [
        volume["name"] for volume in pod["volumes"]
    ]


def test_unit_may_drain() -> None:
    """The unit has longer to stop than calls in flight have to be answered."""
    (seconds,) = re.findall(
        r"^TimeoutStopSec=(\d+)$", read("tbot-otel-relay.service", {}), re.MULTILINE
    )
    assert int(seconds) > DRAIN_WITHIN


# Each of these asks a program that a machine may not have, or may not let everyone use.
if shutil.which("systemd-analyze"):

    @pytest.mark.parametrize(
        "words", [["verify", "--man=no"], ["security", "--offline=true", "--threshold=15"]]
    )
    def test_unit_is_valid(words: list[str], tmp_path: Path) -> None:
        """Systemd finds nothing wrong with the unit, and little that it leaves exposed."""
        unit = tmp_path / "tbot-otel-relay.service"
        unit.write_text(read(unit.name, {"/opt/tbot-otel/bin": str(RELAY.parent)}))
        done = subprocess.run(
            ["systemd-analyze", *words, str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # It speaks of the machine's other units too.
        assert [line for line in done.stderr.splitlines() if unit.name in line] == []
        assert done.returncode == 0


if shutil.which("kubectl"):

    def test_kubernetes_knows_each_field() -> None:
        """Kubernetes' own types, which drop what they do not know, keep all of the Deployment."""
        deployment = manifests()["Deployment"]
        command = ["kubectl", "set", "env", "--local", "--output", "json", "--filename", "-"]
        done = subprocess.run(
            [*command, "TEST=1"],
            env={"PATH": os.environ["PATH"], "KUBECONFIG": os.devnull},
            input=json.dumps(deployment),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert leaves(deployment) <= leaves(json.loads(done.stdout))


READ_ONLY = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
REMOUNT = 'mount -o remount,bind,ro / && exec "$@"'
if (
    shutil.which("unshare")
    and not subprocess.run(
        [*READ_ONLY, REMOUNT, "sh", "true"], capture_output=True, check=False
    ).returncode
):

    def test_read_only(official: Official, tmp_path: Path) -> None:
        """The image's process needs no file system that it can write to."""
        host = Host(tmp_path, official.endpoint("http/protobuf"), free_port())
        server = container(host)
        server = server._replace(words=[*READ_ONLY, REMOUNT, "sh", *server.words])
        with server.running(tmp_path / "relay.log"):
            session, answer = report(server, f"/{SECRET}")
        assert answer == "ok"
        official.find(session)
