"""Programs that record a start and end: each delivers it, and ends as it would without consent.

In the long profile, each program runs a hundred times.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from tbot_otel import StartEvent, sender
from tbot_otel.sender import _Sender

EVENT = StartEvent(run_mode="daemon", version="18.3.0")


def test_waits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits twice at exit does not wait longer in total."""
    now = 0.0
    waits: list[float] = []

    def flush(timeout: float) -> None:
        nonlocal now
        waits.append(timeout)
        now += timeout / 2

    session: Any = SimpleNamespace(flush=flush)
    monkeypatch.setattr(sender, "time", SimpleNamespace(monotonic=lambda: now))
    own = _Sender()
    own._pending.append((EVENT, session, None))
    for _ in range(3):
        own.wait(2.0)
    assert waits == [2.0, 1.0, 0.5]
