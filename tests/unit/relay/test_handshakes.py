"""Connections that the server could not accept, as its log tells of them."""

import errno
import logging
import os
from typing import TYPE_CHECKING, cast

import pytest

from tbot_otel.relay.handshakes import HandshakeHandler
from tbot_otel.relay.log import Tally

if TYPE_CHECKING:
    from tbot_otel.relay.metrics import WorkerMetrics


class Metrics:
    """Metrics that keep the reasons of failed handshakes."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def record_failed_handshake(self, reason: str) -> None:
        """Keep a reason."""
        self.reasons.append(reason)


def emit(handler: HandshakeHandler, message: str) -> None:
    """Log a message."""
    handler.emit(logging.LogRecord("_granian.workers", logging.INFO, "", 0, message, (), None))


def test_stuck_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is stuck once it had no descriptor for a while, until it has one."""
    now = 0.0
    monkeypatch.setattr("tbot_otel.relay.handshakes.time.monotonic", lambda: now)
    handler = HandshakeHandler(cast("WorkerMetrics", Metrics()), Tally())
    text = os.strerror(errno.EMFILE)
    line = f'TCP handshake failed with error: Os {{ code: {errno.EMFILE}, message: "{text}" }}'
    stuck_at = []
    for now in (0.0, 5.0, 5.9, 6.8, 7.2, 9.0, 9.9, 10.8, 11.1):
        emit(handler, line)
        if handler.is_stuck:
            stuck_at.append(now)
    assert stuck_at == [7.2, 11.1]
    now = 12.2
    assert not handler.is_stuck


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("HandshakeTimeout { peer_addr: 192.0.2.1:1 }", "timeout"),
        (
            "TlsAcceptError { error: Custom { kind: UnexpectedEof }, peer_addr: 192.0.2.1:1 }",
            "other",
        ),
    ],
)
def test_failed_handshakes(error: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """Handshakes of clients that do not go on are counted, and have no line of their own."""
    metrics, tally = Metrics(), Tally()
    handler = HandshakeHandler(cast("WorkerMetrics", metrics), tally)
    emit(handler, f"TCP handshake failed with error: {error}")
    tally.log()
    assert metrics.reasons == [reason]
    assert not caplog.messages
