"""Programs that record a start and end: each delivers it, and ends as it would without consent.

In the long profile, each program runs a hundred times.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from tbot_otel import sender
from tbot_otel.sender import _Sender


def test_waits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits twice at exit does not wait longer in total."""
    now = 0.0
    waits: list[float] = []

    def wait(timeout: float) -> None:
        nonlocal now
        waits.append(timeout)
        now += timeout / 2

    start: Any = SimpleNamespace(wait=wait)
    monkeypatch.setattr(sender, "time", SimpleNamespace(monotonic=lambda: now))
    own = _Sender()
    own.pending.append(start)
    for _ in range(3):
        own.wait(2.0)
    assert waits == [2.0, 1.0, 0.5]
