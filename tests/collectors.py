"""Collectors that run here: rotel, the official one, and stand-ins that answer as they are told.

All of them listen on loopback, on ports that nobody else has, and end with the tests.
"""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Self

BUILDER_CONFIG = Path(__file__).parent / "collector" / "builder-config.yaml"
BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.161.0"
PATIENCE = 20.0
_GIVEN: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on, and that no other server here was given.

    It is below those that kernels choose for clients: one of them could take it meanwhile.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in _GIVEN:
                _GIVEN.add(port)
                return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the Collector ended with status {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}")


@contextlib.contextmanager
def running(command: list[str], log: Path, *ports: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        for port in ports:
            wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Rotel:
    """A rotel that prints what it receives."""

    def __init__(self, folder: Path, http_port: int | None = None) -> None:
        self.http_port = http_port or free_port()
        self.grpc_port = free_port()
        self._log = folder / f"rotel-{self.http_port}.log"

    def endpoint(self, protocol: str) -> str:
        """The base URL for a protocol."""
        return f"http://127.0.0.1:{self.grpc_port if protocol == 'grpc' else self.http_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Rotel"]:
        """Run it until the block ends."""
        agent = resources.files("rotel") / "rotel-agent"
        command = [
            *(str(agent), "start", "--exporter", "blackhole"),
            *("--debug-log", "logs", "--debug-log-verbosity", "detailed"),
            *("--otlp-http-endpoint", f"127.0.0.1:{self.http_port}"),
            *("--otlp-grpc-endpoint", f"127.0.0.1:{self.grpc_port}"),
        ]
        with running(command, self._log, self.http_port, self.grpc_port):
            yield self

    def resources(self) -> list[str]:
        """What it printed of each Resource and its records, so far."""
        return self._log.read_text().split("ResourceLog #")[1:]

    def find(self, session_id: str) -> str:
        """Wait for the record of a session, and return what was printed of it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for printed in self.resources():
                # A record ends with its flags.
                if session_id in printed and "\nFlags:" in printed:
                    return printed
            time.sleep(0.05)
        raise AssertionError("rotel has not received the record")


class Official:
    """The official Collector, which writes what it receives to a file."""

    def __init__(self, binary: Path, folder: Path, tls: dict[str, str] | None = None) -> None:
        self.http_port = free_port()
        self.grpc_port = free_port()
        self._scheme = "https" if tls else "http"
        self._binary = binary
        self._folder = folder
        self._file = folder / "received.jsonl"
        protocols = {
            name: {"endpoint": f"127.0.0.1:{port}", **({"tls": tls} if tls else {})}
            for name, port in (("http", self.http_port), ("grpc", self.grpc_port))
        }
        config = {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {"file": {"path": str(self._file), "flush_interval": "50ms"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"logs": {"receivers": ["otlp"], "exporters": ["file"]}},
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
        with running(command, self._folder / "collector.log", self.http_port, self.grpc_port):
            yield self

    def resources(self) -> list[dict[str, Any]]:
        """The ``resourceLogs`` that it has received so far, as OTLP/JSON."""
        text = self._file.read_text() if self._file.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [logs for line in whole for logs in json.loads(line)["resourceLogs"]]

    def find(self, session_id: str) -> dict[str, Any]:
        """Wait for the record of a session, and return its ``resourceLogs``."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for logs in self.resources():
                if plain(logs["resource"]["attributes"]).get("session.id") == session_id:
                    return logs
            time.sleep(0.05)
        raise AssertionError("the Collector has not received the record")


def plain(attributes: list[dict[str, Any]]) -> dict[str, object]:
    """OTLP/JSON's attributes as a dict."""
    result: dict[str, object] = {}
    for attribute in attributes:
        (kind, value), *_ = attribute["value"].items()
        result[attribute["key"]] = int(value) if kind == "intValue" else value
    return result


def build_official() -> Path:
    """Build the official Collector with its own builder, at most once for a configuration.

    Returns:
        The binary, in the user's cache folder.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbot-otel"
    digest = sha256(BUILDER_CONFIG.read_bytes()).hexdigest()[:16]
    binary = cache / f"otelcol-{digest}"
    if binary.exists():
        return binary
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        folder = Path(temporary)
        environ = {**os.environ, "GOBIN": temporary, "GOFLAGS": "-modcacherw"}
        log = folder / "build.log"
        shutil.copy(BUILDER_CONFIG, folder)
        with log.open("wb") as output:
            for command in (
                ["go", "install", BUILDER],
                [str(folder / "builder"), "--config", BUILDER_CONFIG.name],
            ):
                done = subprocess.run(
                    command, cwd=folder, env=environ, stdout=output, stderr=output, check=False
                )
                assert done.returncode == 0, log.read_text()[-4000:]
        (folder / "otelcol-tbot" / "otelcol-tbot").replace(binary)
    return binary


class Answer(NamedTuple):
    """An HTTP answer of a stand-in."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    delay: float = 0.0


class Request(NamedTuple):
    """An HTTP request that a stand-in received."""

    path: str
    headers: dict[str, str]
    body: bytes


class HTTPStandin:
    """An HTTP server of a stand-in's making, which serves until the block ends."""

    _server: ThreadingHTTPServer

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Standin(HTTPStandin):
    """An HTTP server that gives the answers that it was told, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[Request] = []
        remaining = list(answers)
        standin = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    standin.requests.append(Request(self.path, headers, body))
                    answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
                time.sleep(answer.delay)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST  # noqa: N815 - the server's name for it

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield int(server.getsockname()[1])


def run(*words: str, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with words behind it, in an environment of its own.

    Args:
        words: The words behind ``python``.
        timeout: The longest time, in seconds.
        environ: The variables, beside those that a process cannot do without.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [sys.executable, *words],
        env={**kept, "PYTHONWARNINGS": "error", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
