"""Group commit: waiting reports share one export, and each gets its result."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tbot_otel.connect import Report
from tbot_otel.relay.problems import Problem, unavailable

MAX_EXPORT_BATCH_SIZE = 2048
"""The most reports in one export."""

Result = asyncio.Future[Problem | None]


class Committer:
    """Exports reports. One that arrives alone is exported at once; later ones share an export.

    Args:
        export: Exports reports, and returns the problem of each; None if it was delivered. It is
            called on a thread of its own, one call at a time.
    """

    def __init__(
        self, export: Callable[[Sequence[Report]], Mapping[Report, Problem | None]]
    ) -> None:
        self._export = export
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tbot_otel")
        self._waiting: list[tuple[Report, Result]] = []
        self._task: asyncio.Task[None] | None = None
        self._export_seconds = 0.0

    def commit(self, report: Report) -> Result:
        """Export a report, and return the future of its problem; None if it was delivered.

        If that future is done before the export begins, the report is not exported.
        """
        result: Result = asyncio.get_running_loop().create_future()
        self._waiting.append((report, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return result

    def __len__(self) -> int:
        """Return the number of reports whose export has not begun."""
        return len(self._waiting)

    def estimate_seconds(self) -> float:
        """Estimate how long a report that arrives now waits for the end of its export."""
        if self._task is None:
            return 0.0
        return self._export_seconds * (1 + len(self._waiting) // MAX_EXPORT_BATCH_SIZE)

    def drop_abandoned(self) -> None:
        """Drop the reports that no call waits for anymore."""
        self._waiting[:] = [item for item in self._waiting if not item[1].done()]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._waiting[:MAX_EXPORT_BATCH_SIZE]
            del self._waiting[:MAX_EXPORT_BATCH_SIZE]
            reports = [report for report, result in batch if not result.done()]
            if not reports:
                continue
            started_at = time.monotonic()
            try:
                problems = await loop.run_in_executor(self._thread, self._export, reports)
            except Exception as error:  # noqa: BLE001 - the waiting calls need a response
                problem = unavailable(f"the export failed ({type(error).__name__})")
                problems = dict.fromkeys(reports, problem)
            self._export_seconds = time.monotonic() - started_at
            for report, result in batch:
                # A call may have been abandoned during the export.
                if not result.done():
                    result.set_result(problems[report])
        self._task = None
