"""Group commit: waiting reports share one export, and each gets its result."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tbot_otel.connect import Report

MAX_EXPORT_BATCH_SIZE = 2048
"""The most reports in one export."""


class Committer:
    """Exports reports. One that arrives alone is exported at once; later ones share an export.

    Args:
        export: Exports reports, and returns why they were not delivered; None if they were. It is
            called on a thread of its own, one call at a time.
    """

    def __init__(self, export: Callable[[Sequence[Report]], str | None]) -> None:
        self._export = export
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tbot_otel")
        self._waiting: list[tuple[Report, asyncio.Future[str | None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._probe: asyncio.Future[str | None] | None = None

    def commit(self, report: Report) -> asyncio.Future[str | None]:
        """Export a report, and return the future of why it was not delivered; None if it was.

        If that future is done before the export begins, the report is not exported.
        """
        result: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((report, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return result

    @property
    def waiting_count(self) -> int:
        """The number of reports whose export has not begun."""
        return len(self._waiting)

    def drop_abandoned(self) -> None:
        """Drop the reports that no call waits for anymore."""
        self._waiting[:] = [item for item in self._waiting if not item[1].done()]

    async def probe(self) -> str | None:
        """Export no records, and return why the Collector did not accept that; None if it did."""
        if self._probe is None:
            loop = asyncio.get_running_loop()
            self._probe = loop.run_in_executor(self._thread, self._export, [])
            self._probe.add_done_callback(self._clear_probe)
        # Concurrent probes share one export, because reports wait for it.
        return await asyncio.shield(self._probe)

    def _clear_probe(self, _: object) -> None:
        self._probe = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._waiting[:MAX_EXPORT_BATCH_SIZE]
            del self._waiting[:MAX_EXPORT_BATCH_SIZE]
            reports = [report for report, result in batch if not result.done()]
            if not reports:
                continue
            try:
                problem = await loop.run_in_executor(self._thread, self._export, reports)
            except Exception as error:  # noqa: BLE001 - the waiting calls need a response
                problem = f"the export failed ({type(error).__name__})"
            for _, result in batch:
                # A call may have been abandoned during the export.
                if not result.done():
                    result.set_result(problem)
        self._task = None
