"""The examples of `tbot-otel relay`, and servers that they configure."""

import contextlib
import subprocess
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from support import agent
from support.messages import new_session_id
from support.paths import ROOT
from support.processes import WAIT_SECONDS, free_port, running_server, wait_until

EXAMPLES = ROOT / "examples" / "relay"
COMMAND = Path(sysconfig.get_path("scripts")) / "tbot-otel"
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
SECRET = "0123456789abcdef-SECRET"
PROBE_PATHS = ["/healthz", "/readyz"]


def read_example(name: str, replacements: Mapping[str, str]) -> str:
    """Return an example with replacements. Each replaced text has to be in it."""
    text = (EXAMPLES / name).read_text()
    for original, replacement in replacements.items():
        assert original in text
        text = text.replace(original, replacement)
    return text


class Server(NamedTuple):
    """A command that serves on a port, and its variables."""

    words: Sequence[str]
    port: int
    environ: Mapping[str, str] = {}

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run it until the block ends."""
        assignments = [f"{name}={value}" for name, value in self.environ.items()]
        with running_server(["env", *assignments, *self.words], log, self.port) as process:
            # The relay accepts connections for a moment when it checks its address.
            wait_until(self.responds)
            yield process

    def responds(self) -> bool:
        """Whether it responds to HTTP, also with an error."""
        try:
            self.request("/")
        except OSError:
            return False
        return True

    def request(self, path: str, content: bytes | None = None, content_type: str = "") -> int:
        """Send a GET, or a POST of some content, and return the status."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, content, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code


def relay_server(endpoint: str, **environ: str) -> Server:
    """A relay that exports to a Collector."""
    port = free_port()
    words = [str(COMMAND), "relay", "--listen", f"127.0.0.1:{port}"]
    return Server(words, port, {ENDPOINT_VARIABLE: endpoint, **environ})


def report_start(server: Server, prefix: str = "", *, oneshot: bool = True) -> tuple[str, str]:
    """Report a start, and return its session id and the code of the response."""
    session_id = new_session_id()
    message = agent.build_request(session_id, oneshot=oneshot)
    return session_id, agent.call_with_http(f"http://127.0.0.1:{server.port}{prefix}", message)


def collector_server(
    binary: Path, folder: Path, name: str, port: int, replacements: Mapping[str, str]
) -> Server:
    """The official Collector with the configuration of an example."""
    config = folder / name
    config.write_text(read_example(name, replacements))
    # Several Collectors run here, and its own metrics have a fixed port.
    no_metrics = "--set=service.telemetry.metrics.level=none"
    words = [str(binary), "--config", str(config), no_metrics]
    return Server(words, port, {"CLICKHOUSE_PASSWORD": "example"})
