"""The sender asks for consent on its own thread, before it does anything else."""

import pytest

from support.processes import WAIT_SECONDS
from tbot_otel.sender import _Sender
from tbot_otel.session import Outcome, Start, Status


@pytest.mark.parametrize("consents", [True, False])
def test_consent(consents: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If consent was withdrawn since the call, the task does not run."""
    monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY", "1" if consents else "0")
    start = Start()
    _Sender().run(start, lambda: start.settle(Outcome(Status.DELIVERED, "the task ran")))
    expected = Status.DELIVERED if consents else Status.REFUSED
    assert start.wait(WAIT_SECONDS).status is expected
