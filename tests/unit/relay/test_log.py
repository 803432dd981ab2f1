"""The relay's log."""

import pytest

from tbot_otel.relay import log
from tbot_otel.relay.log import ChangeLog, Tally


def test_change_log_of_a_killed_worker(caplog: pytest.LogCaptureFixture) -> None:
    """A worker logs a change even if another one holds the lock forever."""
    change_log = ChangeLog("it succeeds", "it fails")
    change_log._lock.acquire()
    with caplog.at_level("INFO", "tbot_otel.relay"):
        change_log.log_change("503")
        change_log.log_change("503")
        change_log.log_change(None)
    assert caplog.messages == ["it fails: 503", "it succeeds"]


def test_tally(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of event has a line a minute at most, with the number since the last one."""
    now = 0.0
    monkeypatch.setattr("tbot_otel.relay.log.time.monotonic", lambda: now)
    tally = Tally()
    for now in (0.0, 1.0, log.TALLY_INTERVAL_SECONDS - 1, log.TALLY_INTERVAL_SECONDS, 1e6):
        tally.add("first")
        if now == 1.0:
            tally.add("second")
        tally.log()
    assert caplog.messages == ["first: 1", "second: 1", "first: 3", "first: 1"]
