"""`tbot-otel run` sends tbot's own report to the Collector."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from support.agent import AGENT_PATH, REPORTED
from support.cases import EMPTY_ATTRIBUTES
from support.collectors import Collector, Official
from support.otlp import attribute_values
from support.processes import run_python
from support.standins import HTTPStandin, Response
from tbot_otel.connect import RESPONSE_TIMEOUT_SECONDS
from tbot_otel.registry import RESOURCE

OPT_IN = {"TELEPORT_ANONYMOUS_TELEMETRY": "1"}


def run_agent(*words: str, options: Sequence[str] = ()) -> list[str]:
    """The arguments of ``python`` that run the agent under `tbot-otel run`."""
    return ["-m", "tbot_otel", "run", *options, "--", sys.executable, AGENT_PATH, *words]


@pytest.mark.parametrize("allowed", [False, True])
def test_helper(collector: Collector, *, allowed: bool) -> None:
    """A helper's name arrives only if it is allowed; policy leaves an invalid version out."""
    options = ["--allow-helper", "another", "--allow-helper=gha:example/setup"] if allowed else []
    printed = json.loads(
        run_python(
            *run_agent(options=options),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint("http/protobuf"),
            _TBOT_TELEMETRY_HELPER="gha:example/setup",
            _TBOT_TELEMETRY_HELPER_VERSION="v1.2.0-host.example.com",
        ).stdout
    )
    received = collector.find(printed["session"]).attributes
    assert received["tbot.helper"] == ("gha:example/setup" if allowed else "_OTHER")
    assert "tbot.helper_version" not in received


def test_late_report(collector: Collector) -> None:
    """A late report is delivered."""
    late_agent = (
        "sh",
        "-c",
        f"sleep {RESPONSE_TIMEOUT_SECONDS + 1}; exec {sys.executable} {AGENT_PATH}",
    )
    done = run_python(
        *("-m", "tbot_otel", "run", "--", *late_agent),
        timeout=60,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint("http/protobuf"),
        **OPT_IN,
    )
    printed = json.loads(done.stdout)
    assert printed["answer"] == "ok"
    assert collector.find(printed["session"]).event_name == "tbot.start"


def test_closed_streams() -> None:
    """A report from a process without standard streams is delivered."""
    without_streams = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, *run_agent())
    with HTTPStandin(Response()) as collector:
        environ = {**os.environ, **OPT_IN, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        assert subprocess.run(without_streams, env=environ, timeout=60, check=False).returncode == 0
        assert len(collector.requests) == 1


@pytest.mark.parametrize(
    "environ",
    [{}, {"TELEPORT_ANONYMOUS_TELEMETRY": "0"}, {**OPT_IN, "DO_NOT_TRACK": "1"}],
    ids=str,
)
def test_without_consent(environ: dict[str, str]) -> None:
    """The command runs without an address to report to."""
    done = run_python(*run_agent("--status", "5"), timeout=60, **environ)
    assert (done.returncode, done.stderr) == (5, "")
    assert json.loads(done.stdout)["answer"] == "none"


def test_windows() -> None:
    """Without fork, one line says which systems are supported."""
    # On Windows, select takes no streams either.
    windows = "import os, select, sys; del os.fork, select.select; os.name = 'nt'"
    script = f"{windows}; from tbot_otel.cli import main; sys.exit(main(['run', '--', 'true']))"
    done = run_python("-c", script, timeout=60, **OPT_IN)
    assert (done.returncode, done.stdout) == (2, "")
    line = "tbot-otel run: expected Linux or macOS (see tbot-otel run --help)\n"
    assert done.stderr == line


@pytest.mark.parametrize("client", ["runtime", "raw"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_delivered(client: str, protocol: str, official: Official) -> None:
    """The report arrives once, with tbot's session id, and tbot gets its 200."""
    done = run_python(
        *run_agent("--client", client, "--status", "3"),
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=official.endpoint(protocol),
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert (done.returncode, done.stderr) == (3, "")
    printed = json.loads(done.stdout)
    assert printed["answer"] == "ok"
    received = official.find_json(printed["session"])
    (logs,) = received["scopeLogs"]
    (record,) = logs["logRecords"]
    assert attribute_values(record["attributes"]) == EMPTY_ATTRIBUTES | REPORTED
    assert {*attribute_values(received["resource"]["attributes"])} == {
        item.name for item in RESOURCE
    }
