"""Whether the Collector accepts exports, asked also when no start is exported."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tbot_otel.relay.exporting import PROBE_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from tbot_otel.relay.exporting import ReportExporter

PROBE_INTERVAL_SECONDS = 1.0
"""The shortest time between two probes of the Collector."""
MAX_IDLE_SECONDS = 30.0
"""The longest time without an export or a probe."""


class Readiness:
    """Probes the Collector.

    Args:
        exporter: Exports, and knows the result of its last export or probe.
    """

    def __init__(self, exporter: "ReportExporter") -> None:
        self._exporter = exporter
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tbot_otel_probe")
        self._probe: asyncio.Future[None] | None = None
        self._probed_at = float("-inf")

    async def is_ready(self) -> bool:
        """Return whether the Collector accepts exports. It is probed once a second at most."""
        if self._exporter.problem is None:
            return True
        if time.monotonic() - self._probed_at >= PROBE_INTERVAL_SECONDS:
            self._start_probe()
        if self._probe is not None:
            # A lookup of the Collector's name has no limit.
            await asyncio.wait([self._probe], timeout=PROBE_TIMEOUT_SECONDS)
        return self._exporter.problem is None

    def probe_if_idle(self) -> None:
        """Start a probe if nothing was exported for a while."""
        if time.monotonic() - self._exporter.exported_at >= MAX_IDLE_SECONDS:
            self._start_probe()

    def _start_probe(self) -> None:
        if self._probe is None:
            loop = asyncio.get_running_loop()
            self._probe = loop.run_in_executor(self._thread, self._exporter.probe)
            self._probe.add_done_callback(self._finish_probe)

    def _finish_probe(self, _: object) -> None:
        self._probe = None
        self._probed_at = time.monotonic()
