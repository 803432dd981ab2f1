"""The steps of docs/relay.md, typed into a shell."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from support.paths import ROOT
from support.processes import BASE_ENVIRON, WAIT_SECONDS, free_port, wait_until
from support.relay import START_SECONDS
from support.relay_examples import COMMAND, EXAMPLES

PORTS = ("4318", "8126", "8127", "8128", "8443", "9090", "9464")

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "haproxy", "openssl", "prometheus"))),
    reason="needs curl, HAProxy, OpenSSL and Prometheus",
)


class Shell:
    """A shell whose output is read while it runs.

    Args:
        folder: The folder in which it starts.
        path: Where it finds commands.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            ["bash", "-e"],
            cwd=folder,
            env={**BASE_ENVIRON, "PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line

    def type(self, commands: str) -> str:
        """Type commands, wait until they end, and return what was printed meanwhile."""
        assert self._process.stdin is not None
        before = len(self.output)
        self._process.stdin.write(f"{commands}\necho; echo typed-$((1000 + {before}))\n")
        self._process.stdin.flush()

        def has_ended() -> bool:
            assert self._process.poll() is None, self.output
            return f"typed-{1000 + before}" in self.output

        wait_until(has_ended)
        return self.output[before:]

    def retype(self, commands: str) -> str:
        """Pause, type commands that may fail, and return what was printed meanwhile."""
        return self.type(f"sleep 0.2; {commands} || true")

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until a text was printed this many times."""
        wait_until(lambda: self.output.count(text) >= count, START_SECONDS)

    def close(self) -> None:
        """End the shell and all that it started."""
        os.killpg(self._process.pid, signal.SIGTERM)
        # Its output ends with the last of its processes.
        self._reader.join(WAIT_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            pass


def test_steps(official_binary: Path, tmp_path: Path) -> None:
    """From nothing to an acknowledged start, alerts, two relays and another secret."""
    ports = {port: str(free_port()) for port in PORTS}

    def with_free_ports(text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: ports[match[1]], text)

    page = (ROOT / "docs" / "relay.md").read_text()
    blocks = [with_free_ports(block) for block in re.findall("```bash\n(.*?)```", page, re.DOTALL)]
    examples = tmp_path / "examples" / "relay"
    examples.mkdir(parents=True)
    for example in EXAMPLES.iterdir():
        text = example.read_text()
        # In these, 8126 is the port of other machines.
        (examples / example.name).write_text(
            text.replace("8126", ports["8126"])
            if example.suffix == ".cfg"
            else with_free_ports(text).replace("scrape_interval: 15s", "scrape_interval: 1s")
        )
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "otelcol-contrib").symlink_to(official_binary)
    shell = Shell(
        tmp_path, os.pathsep.join([str(binaries), str(COMMAND.parent), os.environ["PATH"]])
    )
    metrics = f"curl --silent localhost:{ports['9464']}/metrics"
    try:
        secret, start, report, look, two_relays, report_again, rotate, count, end = blocks
        shell.type(secret)
        # The Collector's own metrics have a fixed port, and this is faster.
        start = start.replace("trial.yaml", "trial.yaml --set=service.telemetry.metrics.level=none")
        shell.type(start.replace("=15000", "=500"))
        shell.wait_for("INFO: listens on ")
        assert "{}" in shell.type(report)
        wait_until(lambda: "tbot_otel_relay_ready{" in shell.retype(metrics))
        # The Collector writes each second.
        wait_until((tmp_path / "starts.jsonl").read_text)
        looked = shell.type(look)
        assert '"tbot.start"' in looked
        assert re.search(r"^tbot_otel_relay_ready\{.*\} 1$", looked, re.MULTILINE)
        alerts = f"curl --silent localhost:{ports['9090']}/api/v1"
        query = f"{alerts}/query?query=tbot_otel_relay_ready"
        wait_until(lambda: '"tbot-otel-relay"' in shell.retype(query))
        assert "TbotRelayGone" in shell.type(f"{alerts}/rules")
        shell.type(two_relays)
        shell.wait_for("INFO: listens on ", 3)
        wait_until(lambda: "{}" in shell.retype(f"({report_again})"))
        shell.type(rotate)
        shell.wait_for("INFO: listens on ", 5)
        # The old workers, which do not know it yet, still run for a while.
        report_new, look_at_lines = count.splitlines()
        wait_until(lambda: "{}" in shell.retype(report_new))
        line = 'tbot_otel_relay_secret_line="2"'
        wait_until(lambda: line in shell.retype(look_at_lines))
        old = shell.type("head -n 1 path-secret").split()[0]
        shell.type(end)
        wait_until(lambda: "{}" not in shell.retype(f"report {ports['8443']} {old}"))
        assert "{}" in shell.type(f'report {ports["8443"]} "$(cat path-secret)"')
    finally:
        shell.close()
        (tmp_path / "output").write_text(shell.output)
