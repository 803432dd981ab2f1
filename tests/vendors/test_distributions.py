"""The package installs beside a vendor's distribution of OpenTelemetry, and sends starts under it.

It takes minutes, and installs from the package index: `nox --session vendors`.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support.otlp import received_records
from support.paths import ROOT
from support.processes import BASE_ENVIRON
from support.standins import HTTPStandin, Response

PIPELINE = str(ROOT / "examples" / "pipeline.py")
PLAIN = """
from tbot_otel import StartEvent, Status, record_start
outcome = record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(60)
print(outcome)
"""
TIMEOUT_SECONDS = 1200


class Vendor(NamedTuple):
    """A distribution, and what it needs."""

    requirement: str
    installs_first: bool = True
    """Whether it can be there before this package. It cannot if it needs newer dependencies."""
    environ: dict[str, str] | None = None
    """The variables for the exporter `tbot`; None if the distribution does not read them."""


VENDORS = {
    "AWS": Vendor(
        "aws-opentelemetry-distro",
        environ={"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"},
    ),
    "Splunk": Vendor("splunk-opentelemetry", environ={}),
    "Elastic": Vendor("elastic-opentelemetry", environ={}),
    "GCP": Vendor("opentelemetry-exporter-gcp-logging"),
    "Azure": Vendor("azure-monitor-opentelemetry", installs_first=False),
    "Dash0": Vendor("dash0-opentelemetry", installs_first=False),
}


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)

    def run(self, program: str, *arguments: str, **environ: str) -> str:
        """Run one of its programs, and return what it printed to standard output."""
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            env=BASE_ENVIRON | environ if environ else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        return done.stdout

    def install(self, *requirements: str) -> set[str]:
        """Install requirements; return the versions of all that is installed."""
        self.run("pip", "install", "--quiet", *requirements)
        assert self.run("pip", "check") == "No broken requirements found.\n"
        return {*self.run("pip", "freeze", "--exclude", "tbot-otel").split("\n")}


@pytest.mark.parametrize("name", VENDORS)
def test_vendor(name: str, tmp_path: Path) -> None:
    """Installing changes no version of the vendor's, and a start is sent only with consent."""
    vendor = VENDORS[name]
    environment = Environment(tmp_path / "environment")
    if vendor.installs_first:
        before = environment.install(vendor.requirement)
        assert before <= environment.install(str(ROOT))
    else:
        environment.install(vendor.requirement, str(ROOT))

    commands = [("python", "-c", PLAIN)]
    if vendor.environ is not None:
        commands.append(("opentelemetry-instrument", "python", PIPELINE))
    for command in commands:
        with HTTPStandin(Response()) as collector:
            environ = {
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{collector.endpoint}/v1/logs",
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
                "OTEL_LOGS_EXPORTER": "tbot",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_TRACES_EXPORTER": "none",
                "PATH": f"{tmp_path}/environment/bin:{BASE_ENVIRON['PATH']}",
                **(vendor.environ or {}),
            }
            environment.run(*command, **environ)
            assert collector.requests == []
            environment.run(*command, TELEPORT_ANONYMOUS_TELEMETRY="1", **environ)
        ((resource, record),) = received_records(collector.requests)
        assert (record.event_name, resource["service.name"]) == ("tbot.start", "tbot")
