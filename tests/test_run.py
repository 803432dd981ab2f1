"""`tbot-otel run`: tbot's own report goes to the Collector, and tbot runs as it would have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import REPORTED
from collectors import Answer, Official, Rotel, Standin, plain, run
from tbot_otel.connect import ANSWER_WITHIN
from tbot_otel.events import RESOURCE

OPT_IN = {"TELEPORT_ANONYMOUS_TELEMETRY": "1"}
AGENT = str(Path(__file__).parent / "agent.py")


def command(*words: str) -> list[str]:
    """The words behind ``python`` that run the agent, as `tbot-otel run` has it."""
    return ["-m", "tbot_otel", "run", "--", sys.executable, AGENT, *words]


def test_helper_is_named(rotel: Rotel) -> None:
    """What tbot is told of its helper arrives, as far as policy lets it."""
    told = json.loads(
        run(
            *command(),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=rotel.endpoint("http/protobuf"),
            _TBOT_TELEMETRY_HELPER="gha:example/setup",
            _TBOT_TELEMETRY_HELPER_VERSION="v1.2.0-host.example.com",
        ).stdout
    )
    received = rotel.find(told["session"])
    assert "-> tbot.helper: Str(gha:example/setup)" in received
    assert "tbot.helper_version" not in received


def test_late(rotel: Rotel) -> None:
    """A report that comes late is delivered as any other."""
    late = ("sh", "-c", f"sleep {ANSWER_WITHIN + 1}; exec {sys.executable} {AGENT}")
    done = run(
        *("-m", "tbot_otel", "run", "--", *late),
        timeout=60,
        OTEL_EXPORTER_OTLP_ENDPOINT=rotel.endpoint("http/protobuf"),
        **OPT_IN,
    )
    told = json.loads(done.stdout)
    assert told["answer"] == "ok"
    assert "EventName: tbot.start" in rotel.find(told["session"])


def test_closed_streams() -> None:
    """A report is delivered from a process that has no standard streams."""
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, *command())
    with Standin(Answer()) as collector:
        environ = {**os.environ, **OPT_IN, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        assert subprocess.run(closed, env=environ, timeout=60, check=False).returncode == 0
        assert len(collector.requests) == 1


@pytest.mark.parametrize(
    "environ",
    [{}, {"TELEPORT_ANONYMOUS_TELEMETRY": "0"}, {**OPT_IN, "DO_NOT_TRACK": "1"}],
    ids=str,
)
def test_without_consent(environ: dict[str, str]) -> None:
    """The command runs, and has no address to report to."""
    done = run(*command("--status", "5"), timeout=60, **environ)
    assert (done.returncode, done.stderr) == (5, "")
    assert json.loads(done.stdout)["answer"] == "none"


def test_elsewhere_than_on_unix() -> None:
    """Where there is no fork, that is one line."""
    # There, select takes no stream.
    windows = "import os, select, sys; del os.fork, select.select; os.name = 'nt'"
    script = f"{windows}; from tbot_otel.cli import main; sys.exit(main(['run', '--', 'true']))"
    done = run("-c", script, timeout=60, **OPT_IN)
    assert (done.returncode, done.stdout) == (2, "")
    line = "tbot-otel run: expected Linux or macOS (see tbot-otel run --help)\n"
    assert done.stderr == line


@pytest.mark.parametrize("client", ["runtime", "raw"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_delivered(client: str, protocol: str, official: Official) -> None:
    """The report arrives once, with the session id that tbot made, and tbot is told."""
    done = run(
        *command("--client", client, "--status", "3"),
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=official.endpoint(protocol),
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert (done.returncode, done.stderr) == (3, "")
    told = json.loads(done.stdout)
    assert told["answer"] == "ok"
    received = official.find(told["session"])
    (logs,) = received["scopeLogs"]
    (record,) = logs["logRecords"]
    assert plain(record["attributes"]) == REPORTED
    assert {*plain(received["resource"]["attributes"])} == {item.name for item in RESOURCE}
