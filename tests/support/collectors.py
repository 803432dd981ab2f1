"""Collectors that run on loopback: rotel and the official one."""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from support.otlp import attribute_values
from support.processes import free_port, running_server, wait_until

BUILDER_CONFIG = Path(__file__).parent / "builder-config.yaml"
BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.161.0"


class ReceivedStart(NamedTuple):
    """A start as a Collector received it: one record and its Resource."""

    resource: dict[str, object]
    scope: str
    event_name: str
    timestamp: int
    severity: str
    body: object
    attributes: dict[str, object]


class Rotel:
    """A rotel, which prints the records that it receives."""

    def __init__(self, folder: Path, http_port: int | None = None) -> None:
        self.http_port = http_port or free_port()
        self.grpc_port = free_port()
        self._log = folder / f"rotel-{self.http_port}.log"

    @staticmethod
    @functools.cache
    def problem() -> str | None:
        """The reason that rotel cannot run here, if there is one."""
        try:
            done = subprocess.run(
                [Rotel._program(), "--version"],
                env=Rotel._environ(),
                capture_output=True,
                text=True,
                check=False,
            )
        except (ModuleNotFoundError, OSError) as error:
            return str(error)
        return None if done.returncode == 0 else done.stderr.strip() or str(done.returncode)

    @staticmethod
    def _program() -> str:
        return str(resources.files("rotel") / "rotel-agent")

    @staticmethod
    def _environ() -> dict[str, str]:
        """The variables of this process; rotel loads the shared libpython of this interpreter."""
        folders = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}

    def endpoint(self, protocol: str) -> str:
        """The base URL for a protocol."""
        return f"http://127.0.0.1:{self.grpc_port if protocol == 'grpc' else self.http_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Rotel"]:
        """Run it until the block ends."""
        command = [
            *(self._program(), "start", "--exporter", "blackhole"),
            *("--debug-log", "logs", "--debug-log-verbosity", "detailed"),
            *("--otlp-http-endpoint", f"127.0.0.1:{self.http_port}"),
            *("--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc_port}"),
        ]
        ports = (self.http_port, self.grpc_port)
        with running_server(command, self._log, *ports, environ=self._environ()):
            yield self

    def find_text(self, session_id: str) -> str:
        """Wait for the record of a session, and return the text that was printed for it."""

        def find() -> str | None:
            for text in self._log.read_text().split("ResourceLog #")[1:]:
                # Flags are the last line of a record.
                if session_id in text and "\nFlags:" in text:
                    return text
            return None

        return str(wait_until(find))

    def find(self, session_id: str) -> ReceivedStart:
        """Wait for the record of a session, the only one of its Resource, and return it."""
        text = self.find_text(session_id)
        (_, resource, _, attributes) = re.split(r"\n(?:Resource a|A|ScopeLogs #).*\n", text)
        lines = dict(re.findall(r"(?m)^(\w+):? (.+)$", text))
        return ReceivedStart(
            _attributes_in(resource),
            lines["InstrumentationScope"],
            lines["EventName"],
            int(lines["Timestamp"]),
            lines["SeverityText"],
            None if lines["Body"] == "Empty" else lines["Body"],
            _attributes_in(attributes),
        )


def _attributes_in(text: str) -> dict[str, object]:
    """The attributes in a text of rotel's, none of them twice."""
    found = re.findall(r"(?m)^ +-> ([\w.]+): (\w+)\((.*)\)$", text)
    result = {name: int(value) if kind == "Int" else value for name, kind, value in found}
    assert len(result) == len(found)
    return result


class Official:
    """The official Collector, which writes the records that it receives to a file."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        http_port: int | None = None,
        *,
        tls: dict[str, str] | None = None,
        exporters: dict[str, Any] | None = None,
    ) -> None:
        self.http_port = http_port or free_port()
        self.grpc_port = free_port()
        self._scheme = "https" if tls else "http"
        self._binary = binary
        self._folder = folder
        self._file = folder / "received.jsonl"
        protocols = {
            name: {"endpoint": f"127.0.0.1:{port}", **({"tls": tls} if tls else {})}
            for name, port in (("http", self.http_port), ("grpc", self.grpc_port))
        }
        exporters = exporters or {"file": {"path": str(self._file), "flush_interval": "50ms"}}
        config = {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": exporters,
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"logs": {"receivers": ["otlp"], "exporters": [*exporters]}},
            },
        }
        self._config = folder / "collector.json"
        self._config.write_text(json.dumps(config))

    def endpoint(self, protocol: str) -> str:
        """The base URL for a protocol."""
        port = self.grpc_port if protocol == "grpc" else self.http_port
        return f"{self._scheme}://localhost:{port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Official"]:
        """Run it until the block ends."""
        command = [str(self._binary), "--config", str(self._config)]
        log = self._folder / "collector.log"
        with running_server(command, log, self.http_port, self.grpc_port):
            yield self

    def resources(self) -> list[dict[str, Any]]:
        """The ``resourceLogs`` that it has received so far, as OTLP/JSON."""
        text = self._file.read_text() if self._file.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [logs for line in whole for logs in json.loads(line)["resourceLogs"]]

    def find_json(self, session_id: str) -> dict[str, Any]:
        """Wait for the record of a session, and return its ``resourceLogs``."""

        def find() -> dict[str, Any]:
            for logs in self.resources():
                if attribute_values(logs["resource"]["attributes"]).get("session.id") == session_id:
                    return logs
            return {}

        return wait_until(find)

    def find_text(self, session_id: str) -> str:
        """Wait for the record of a session, and return its ``resourceLogs`` as text."""
        return json.dumps(self.find_json(session_id))

    def find(self, session_id: str) -> ReceivedStart:
        """Wait for the record of a session, the only one of its Resource, and return it."""
        logs = self.find_json(session_id)
        (scope,) = logs["scopeLogs"]
        (record,) = scope["logRecords"]
        return ReceivedStart(
            _unique(logs["resource"]["attributes"]),
            f"{scope['scope']['name']} {scope['scope']['version']}",
            record["eventName"],
            int(record["timeUnixNano"]),
            record["severityText"],
            # The official Collector writes an absent body as {}.
            record["body"] or None,
            _unique(record["attributes"]),
        )


def _unique(attributes: list[dict[str, Any]]) -> dict[str, object]:
    """OTLP/JSON attributes as a dict, none of them twice."""
    result = attribute_values(attributes)
    assert len(result) == len(attributes)
    return result


Collector = Rotel | Official
MakeCollector = Callable[[Path, int | None], Collector]
"""Makes a Collector that does not run yet, from a folder and an HTTP port."""


def build_official() -> Path:
    """Build the official Collector with its own builder, once for each configuration.

    Returns:
        The binary, in the user's cache folder.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbot-otel"
    cache.mkdir(parents=True, exist_ok=True)
    digest = sha256(BUILDER_CONFIG.read_bytes()).hexdigest()[:16]
    binary = cache / f"otelcol-{digest}"
    # Workers of pytest-xdist ask for it at the same time.
    with FileLock(f"{binary}.lock"):
        if not binary.exists():
            _build_official(cache, binary)
    return binary


def _build_official(cache: Path, binary: Path) -> None:
    modules = re.findall(r"gomod: (\S+) (\S+)", BUILDER_CONFIG.read_text())
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        folder = Path(temporary)
        sources = folder / "otelcol-tbot"
        sources.mkdir()
        # Without data for debuggers, a package compiles faster.
        compiler_flags = "-gcflags=all=-dwarf=false"
        go_flags = f"-modcacherw -trimpath -mod=mod {compiler_flags}"
        environ = {**os.environ, "GOBIN": temporary, "GOFLAGS": go_flags}
        builder = ["./builder", "--skip-get-modules", f"-{compiler_flags}"]
        log = folder / "build.log"
        shutil.copy(BUILDER_CONFIG, folder)
        with log.open("wb") as output:
            for cwd, command in (
                (folder, ["go", "install", BUILDER]),
                # The builder's `go mod tidy` gets the modules of all tests, too: half of the time.
                (sources, ["go", "mod", "init", sources.name]),
                (sources, ["go", "mod", "edit", *(f"-require={n}@{v}" for n, v in modules)]),
                (folder, [*builder, "--config", BUILDER_CONFIG.name]),
            ):
                done = subprocess.run(
                    command, cwd=cwd, env=environ, stdout=output, stderr=output, check=False
                )
                assert done.returncode == 0, log.read_text()[-4000:]
        (sources / "otelcol-tbot").replace(binary)
