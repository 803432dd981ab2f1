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
from tbot_otel import StartEvent, record_start
print(record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(60))
"""
# The vendor's setup is between these.
PROCESSOR = """
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from tbot_otel import OptInLogRecordProcessor, StartEvent, TbotLogExporter, record_start
processor = OptInLogRecordProcessor(BatchLogRecordProcessor(TbotLogExporter()))
"""
IN_CODE = """
event = StartEvent(run_mode="daemon", version="18.3.0")
print(record_start(event, logger_provider=provider).flush(60))
"""
PROVIDER = """
from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
provider = get_logger_provider()
"""
ADD = PROVIDER + "provider.add_log_record_processor(processor)"
HAS_NO_PROVIDER = PROVIDER + "assert not isinstance(provider, LoggerProvider)"
TIMEOUT_SECONDS = 600


class Vendor(NamedTuple):
    """A distribution, and how it takes part. CLOUD stands for the URL of the vendor's service."""

    requirements: str
    environ: dict[str, str] | None = None
    """The variables for the exporter `tbot`; None if the distribution does not read them."""
    setup: str = ""
    """Code that starts the distribution."""
    provider: str = ""
    """Code that adds a processor to its logger provider, or finds that there is none."""
    is_installed_first: bool = False
    """Whether pip installs it before this package. It cannot if it needs newer dependencies."""


AWS = {"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"}
DASH0 = {
    "DASH0_OTEL_COLLECTOR_BASE_URL": "CLOUD",
    "OTEL_LOGS_EXPORTER": "otlp_proto_http,tbot",
}
SOLARWINDS = {"SW_APM_COLLECTOR": "localhost:1", "SW_APM_SERVICE_KEY": "example:example"}
AZURE = """
from azure.monitor.opentelemetry import configure_azure_monitor
key = "InstrumentationKey=00000000-0000-0000-0000-000000000000"
configure_azure_monitor(connection_string=f"{key};IngestionEndpoint=CLOUD;LiveEndpoint=CLOUD")
"""
LOGFIRE = """
import logfire
options = logfire.AdvancedOptions(log_record_processors=[processor])
logfire.configure(send_to_logfire=False, advanced=options)
"""
UPTRACE = """
import uptrace
uptrace.configure_opentelemetry(dsn="CLOUD".replace("//", "//example@"))
"""
MICROSOFT = """
from microsoft.opentelemetry import use_microsoft_opentelemetry
use_microsoft_opentelemetry()
"""
HYPERDX = """
from hyperdx.opentelemetry import HyperDXOptions, configure_opentelemetry
configure_opentelemetry(HyperDXOptions(apikey="example", endpoint="CLOUD"))
"""
DDTRACE = """
import os
os.environ |= {"DD_LOGS_OTEL_ENABLED": "true", "DD_TRACE_AGENT_URL": "CLOUD"}
import ddtrace.auto
"""
LANGFUSE = """
from langfuse import Langfuse
Langfuse(public_key="pk-lf-example", secret_key="sk-lf-example", base_url="CLOUD")
"""
PHOENIX = """
from phoenix.otel import register
register(endpoint="CLOUD/v1/traces", protocol="http/protobuf")
"""
TRACELOOP = """
from traceloop.sdk import Traceloop
Traceloop.init(app_name="example", api_endpoint="CLOUD", api_key="example")
"""
NEW_RELIC = """
import newrelic.agent
newrelic.agent.initialize()
"""
HONEYCOMB = """
from honeycomb.opentelemetry import HoneycombOptions, configure_opentelemetry
configure_opentelemetry(HoneycombOptions(apikey="example", endpoint="CLOUD"))
"""
CORALOGIX = """
from coralogix_opentelemetry.trace.samplers import CoralogixTransactionSampler
CoralogixTransactionSampler()
"""
SENTRY = """
import sentry_sdk
sentry_sdk.init(dsn="CLOUD/1".replace("//", "//example@"))
"""
VENDORS = {
    "OpenTelemetry": Vendor("opentelemetry-distro", {}),
    "Elastic": Vendor("elastic-opentelemetry", {}, is_installed_first=True),
    "SolarWinds": Vendor("solarwinds-apm", SOLARWINDS),
    "AWS": Vendor("aws-opentelemetry-distro", AWS, is_installed_first=True),
    "Splunk": Vendor("splunk-opentelemetry", {}, is_installed_first=True),
    "Dash0": Vendor("dash0-opentelemetry", DASH0),
    "Google Cloud": Vendor("opentelemetry-exporter-gcp-logging", is_installed_first=True),
    "Azure": Vendor("azure-monitor-opentelemetry", setup=AZURE, provider=ADD),
    "Logfire": Vendor("logfire", setup=LOGFIRE, provider=PROVIDER),
    "Uptrace": Vendor("uptrace", setup=UPTRACE, provider=ADD),
    "Microsoft": Vendor("microsoft-opentelemetry", setup=MICROSOFT, provider=ADD),
    "HyperDX": Vendor("hyperdx-opentelemetry", setup=HYPERDX, provider=ADD),
    "ddtrace": Vendor("ddtrace", setup=DDTRACE, provider=ADD),
    "Langfuse": Vendor("langfuse", setup=LANGFUSE, provider=HAS_NO_PROVIDER),
    "Phoenix": Vendor("arize-phoenix-otel", setup=PHOENIX, provider=HAS_NO_PROVIDER),
    # It imports httpx, and does not require it.
    "Traceloop": Vendor("traceloop-sdk httpx", setup=TRACELOOP, provider=HAS_NO_PROVIDER),
    "New Relic": Vendor("newrelic", setup=NEW_RELIC, provider=HAS_NO_PROVIDER),
    # It imports pkg_resources.
    "Honeycomb": Vendor(
        "honeycomb-opentelemetry setuptools<81", setup=HONEYCOMB, provider=HAS_NO_PROVIDER
    ),
    "Coralogix": Vendor("coralogix-opentelemetry", setup=CORALOGIX, provider=HAS_NO_PROVIDER),
    "Sentry": Vendor("sentry-sdk", setup=SENTRY, provider=HAS_NO_PROVIDER),
}


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self._uv("venv", "--seed", str(folder))

    def _uv(self, *words: str) -> None:
        command = [sys.executable, "-m", "uv", "--quiet", *words]
        subprocess.run(command, timeout=TIMEOUT_SECONDS, check=True)

    def run(self, program: str, *arguments: str, **environ: str) -> str:
        """Run one of its programs, and return what it printed to standard output."""
        done = subprocess.run(
            [str(self.bin / program), *arguments],
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

    def install_together(self, *requirements: str) -> None:
        """Install requirements with uv: pip tries the versions of some vendors for minutes."""
        python = f"--python={self.bin / 'python'}"
        self._uv("pip", "install", python, *requirements)
        self._uv("pip", "check", python)


@pytest.mark.parametrize("name", VENDORS)
def test_vendor(name: str, tmp_path: Path) -> None:
    """Installing changes no version of the vendor's, and a start is sent only with consent."""
    vendor = VENDORS[name]
    environment = Environment(tmp_path / "environment")
    if vendor.is_installed_first:
        before = environment.install(*vendor.requirements.split())
        assert before <= environment.install(str(ROOT))
    else:
        environment.install_together(*vendor.requirements.split(), str(ROOT))

    with HTTPStandin(Response()) as cloud:
        setup = vendor.setup.replace("CLOUD", cloud.endpoint)
        commands = [("python", "-c", PROCESSOR + setup + PLAIN)]
        if vendor.provider == HAS_NO_PROVIDER:
            commands = [("python", "-c", setup + vendor.provider + PLAIN)]
        elif vendor.provider:
            commands.append(("python", "-c", PROCESSOR + setup + vendor.provider + IN_CODE))
        if vendor.environ is not None:
            commands.append(("opentelemetry-instrument", "python", PIPELINE))
        environ = {
            name: value.replace("CLOUD", cloud.endpoint)
            for name, value in (vendor.environ or {}).items()
        }
        for command in commands:
            check_consent(environment, command, environ)


def check_consent(environment: Environment, command: tuple[str, ...], more: dict[str, str]) -> None:
    """The command sends one anonymous start with consent, and nothing without."""
    with HTTPStandin(Response()) as collector:
        environ = {
            # SolarWinds compresses.
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{collector.endpoint}/v1/logs",
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "tbot",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_TRACES_EXPORTER": "none",
            "PATH": f"{environment.bin}:{BASE_ENVIRON['PATH']}",
            **more,
        }
        environment.run(*command, **environ)
        assert anonymous_starts(collector) == 0
        environment.run(*command, TELEPORT_ANONYMOUS_TELEMETRY="1", **environ)
        assert anonymous_starts(collector) == 1


def anonymous_starts(collector: HTTPStandin) -> int:
    """The number of starts that came with our Resource, in place of the program's."""
    return sum(
        (record.event_name, resource.get("service.name")) == ("tbot.start", "tbot")
        for resource, record in received_records(collector.requests)
    )


def test_middleware(tmp_path: Path) -> None:
    """Middleware's distribution pins an older SDK: both cannot be in one environment."""
    environment = Environment(tmp_path / "environment")
    with pytest.raises(subprocess.CalledProcessError):
        environment.install_together("middleware-io", str(ROOT))
