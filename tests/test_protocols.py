"""Each protocol into real Collectors."""

from collectors import Rotel, run

START = """
from tbot_otel import StartEvent, record_start
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
print(session.id, session.flush(10).status.name)
"""


def test_rotel(rotel: Rotel) -> None:
    """A start arrives."""
    done = run(
        "-c",
        START,
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=rotel.endpoint("http/protobuf"),
    )
    assert done.stderr == ""
    session, status = done.stdout.split()
    assert status == "DELIVERED"
    assert "EventName: tbot.start" in rotel.find(session)
