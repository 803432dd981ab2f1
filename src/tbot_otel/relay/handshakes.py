"""Connections that the server could not accept: failed TLS handshakes, and too many descriptors.

The server tells of them only in its log, with clients' addresses.
"""

import errno
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tbot_otel.relay.log import Tally
    from tbot_otel.relay.metrics import WorkerMetrics

_OUT_OF_DESCRIPTORS = f"Os {{ code: {errno.EMFILE},"
_STUCK_SECONDS = 2.0
"""How long the server can be out of descriptors.

It then ends no handshake that is late, and stays out of descriptors.
"""

# Parts of the server's log lines, the reason for metrics, and what the log says of a mismatch.
_FAILURES = (
    ("InvalidContentType", "not_tls", "connections without TLS to the port for TLS"),
    ("PeerIncompatible", "no_common_version", "TLS connections without a common version (1.3)"),
    (
        "AlertReceived",
        "certificate_refused",
        "TLS connections whose client refused the certificate",
    ),
    ("HandshakeTimeout", "timeout", None),
    ("TlsAcceptError", "other", None),
)


class HandshakeHandler(logging.Handler):
    """Counts what the server logs of connections that it could not accept.

    Args:
        metrics: Counts failed handshakes.
        tally: Logs mismatches.
    """

    def __init__(self, metrics: "WorkerMetrics", tally: "Tally") -> None:
        super().__init__()
        self._metrics = metrics
        self._tally = tally
        # When a series of connections without a descriptor began and, so far, ended.
        self._first_at = self._last_at = float("-inf")

    @property
    def is_stuck(self) -> bool:
        """Whether the server has been out of descriptors for too long."""
        recent = time.monotonic() - self._last_at < 1
        return recent and self._last_at - self._first_at >= _STUCK_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        """Count a failure."""
        message = record.getMessage()
        if _OUT_OF_DESCRIPTORS in message:
            now = time.monotonic()
            if now - self._last_at > 1:
                self._first_at = now
            self._last_at = now
            return
        for part, reason, description in _FAILURES:
            if part in message:
                self._metrics.record_failed_handshake(reason)
                if description:
                    self._tally.add(description)
                return
