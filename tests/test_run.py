"""`tbot-otel run`: tbot's own report goes to the Collector, and tbot runs as it would have."""

import contextlib
import json
import sys
from pathlib import Path

import pytest

from collectors import Official, plain, run
from tbot_otel.events import RESOURCE

AGENT = str(Path(__file__).parent / "agent.py")


def command(*words: str) -> list[str]:
    """The words behind ``python`` that run the agent, as `tbot-otel run` has it."""
    return ["-m", "tbot_otel", "run", "--", sys.executable, AGENT, *words]


def forwarders() -> set[int]:
    """The process ids of all forwarders, found as `ps` would find them: by their command line."""
    found = set()
    for folder in Path("/proc").iterdir():
        # Whatever ends meanwhile is none.
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
            if b"\0run\0" in words and b"tbot_otel\0" in words:
                found.add(int(folder.name))
    return found


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
    assert plain(record["attributes"]) == {
        "tbot.run_mode": "one-shot",
        "tbot.version": "18.3.0",
        "tbot.join_type": "github",
        "tbot.destinations_other": 2,
        "tbot.destinations_database": 1,
        "tbot.destinations_kubernetes": 0,
        "tbot.destinations_application": 0,
    }
    assert {*plain(received["resource"]["attributes"])} == {item.name for item in RESOURCE}
