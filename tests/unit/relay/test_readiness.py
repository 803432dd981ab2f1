"""Probes of the Collector, on request and when no start is exported."""

import asyncio
import threading
import time
from typing import TYPE_CHECKING, cast

from support.processes import WAIT_SECONDS
from tbot_otel.relay.readiness import MAX_IDLE_SECONDS, Readiness

if TYPE_CHECKING:
    from tbot_otel.relay.exporting import ReportExporter


class StandinExporter:
    """An exporter whose probe waits for its gate, and fails."""

    def __init__(self, *, idle_seconds: float, problem: str | None = None) -> None:
        self.problem = problem
        self.exported_at = time.monotonic() - idle_seconds
        self.probe_count = 0
        self.gate = threading.Event()

    def probe(self) -> None:
        """Fail."""
        self.probe_count += 1
        self.gate.wait(WAIT_SECONDS)
        self.problem, self.exported_at = "down", time.monotonic()


async def sweep(exporter: StandinExporter) -> bool:
    """Let idle exporters be probed, as often as the relay does, and return whether it is ready."""
    readiness = Readiness(cast("ReportExporter", exporter))
    for _ in range(3):
        readiness.probe_if_idle()
        await asyncio.sleep(0)
    exporter.gate.set()
    if readiness._probe is not None:
        await readiness._probe
    readiness.probe_if_idle()
    return await readiness.is_ready()


def test_idle() -> None:
    """After some time without an export, the Collector is probed once, though nobody asks."""
    exporter = StandinExporter(idle_seconds=MAX_IDLE_SECONDS + 1)
    assert asyncio.run(sweep(exporter)) is False
    assert exporter.probe_count == 1


def test_busy() -> None:
    """While starts are exported, their results are enough."""
    exporter = StandinExporter(idle_seconds=0)
    assert asyncio.run(sweep(exporter)) is True
    assert exporter.probe_count == 0


def test_asked() -> None:
    """While exports fail, each question can start a probe, once a second at most."""
    exporter = StandinExporter(idle_seconds=0, problem="down")
    assert asyncio.run(sweep(exporter)) is False
    assert exporter.probe_count == 1
