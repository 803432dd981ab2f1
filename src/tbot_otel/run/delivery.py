"""A start on its way to the Collector, in one attempt after another."""

import time

from tbot_otel import sender
from tbot_otel.session import Outcome, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tbot_otel.connect import Report
    from tbot_otel.otlp.exporter import LazyExporter
    from tbot_otel.run.waker import Waker

NEVER = float("inf")
"""The time of what does not happen."""

# The pause after a failed attempt. It doubles each time, up to the maximum.
_MIN_RETRY_SECONDS = 5.0
_MAX_RETRY_SECONDS = 30.0


class _Attempt(Start):
    """An attempt to send a start, which wakes the forwarder when it is over."""

    __slots__ = ("_waker",)

    def __init__(self, report: "Report", waker: "Waker") -> None:
        super().__init__(report.session_id, report.timestamp)
        self._waker = waker

    def settle(self, outcome: Outcome) -> None:
        super().settle(outcome)
        self._waker.wake()


class Delivery:
    """A start on its way to the Collector, in one attempt after another.

    An attempt is an export, with the retries of the official exporter.

    Args:
        report: tbot's report of the start.
        waker: Gets to know when an attempt is over.
        build_exporter: Builds the exporter of an attempt.

    Attributes:
        attempt: The last attempt.
        retry_at: When the next one is due, on the monotonic clock in seconds.
    """

    def __init__(
        self, report: "Report", waker: "Waker", build_exporter: "Callable[[], LazyExporter]"
    ) -> None:
        self._report = report
        self._waker = waker
        self._build_exporter = build_exporter
        self._retry_seconds = _MIN_RETRY_SECONDS
        self.session_id: str = report.session_id
        self.start_attempt()

    def start_attempt(self) -> None:
        """Start an attempt."""
        self.retry_at: float = NEVER
        self.attempt: Start = _Attempt(self._report, self._waker)
        try:
            sender.submit(self._report.permitted, self.attempt, self._build_exporter)
        except Exception as error:  # noqa: BLE001 - the system may refuse another thread
            self.attempt.fail(error)

    def retry_if_due(self) -> None:
        """Start another attempt some time after one that failed for a temporary reason."""
        if not self.attempt.outcome.can_retry:
            return
        now = time.monotonic()
        if self.retry_at == NEVER:
            self.retry_at = now + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _MAX_RETRY_SECONDS)
        elif now >= self.retry_at:
            self.start_attempt()
