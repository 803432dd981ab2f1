"""Starts and their records, in this process or in one of its own."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from support.processes import run_python
from tbot_otel.pipeline.record import PermittedRecord
from tbot_otel.policy import Permitted, decide
from tbot_otel.registry import START
from tbot_otel.session import Start

RECORD_START_SCRIPT = """
import json, sys
from tbot_otel import StartEvent, record_start
session = record_start(StartEvent(**json.loads(sys.argv[1])))
outcome = session.flush(15)
print(json.dumps({
    "id": session.id,
    "started": session._start.time,
    "status": outcome.status.name,
    "reason": outcome.reason,
}))
"""
MINIMAL_EVENT: dict[str, Any] = {"run_mode": "daemon", "version": "18.3.0"}


def permit(attributes: Mapping[str, object]) -> Permitted:
    """What policy permits of a start with these attributes."""
    permitted = decide(START.name, attributes)
    assert isinstance(permitted, Permitted)
    return permitted


def own_record(start: Start) -> PermittedRecord:
    """The record of a start."""
    return PermittedRecord(permit({f"tbot.{k}": v for k, v in MINIMAL_EVENT.items()}), start)


class RecordedStart(NamedTuple):
    """The session and the outcome that a process prints, and its stderr."""

    id: str
    started: int
    status: str
    reason: str
    stderr: str


def record_start_in_process(
    fields: dict[str, Any] = MINIMAL_EVENT, /, **environ: str
) -> RecordedStart:
    """Record a start in a process of its own, by default with consent."""
    environ = {"TELEPORT_ANONYMOUS_TELEMETRY": "1", **environ}
    done = run_python("-c", RECORD_START_SCRIPT, json.dumps(fields), timeout=60, **environ)
    assert done.returncode == 0, done.stderr
    return RecordedStart(**json.loads(done.stdout), stderr=done.stderr)
