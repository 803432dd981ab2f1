"""Group commit: the reports that wait share one export, and each learns what became of it."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tbot_otel.connect import Report

MOST_TOGETHER = 2048
"""The most reports of an export."""


class Committer:
    """Exports reports. A report that comes alone goes at once; those that come meanwhile, together.

    Args:
        export: Exports reports, and returns why they were not delivered. It is called on a thread
            of its own, once at a time.
    """

    def __init__(self, export: Callable[[Sequence[Report]], str | None]) -> None:
        self._export = export
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tbot_otel")
        self._waiting: list[tuple[Report, asyncio.Future[str | None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._probe: asyncio.Future[str | None] | None = None

    def commit(self, report: Report) -> asyncio.Future[str | None]:
        """Export a report, and return what will tell why it was not delivered.

        A report that is not under way yet, and whose result has been cancelled or set, is left out.
        """
        result: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((report, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return result

    @property
    def waiting(self) -> int:
        """How many reports are not under way yet."""
        return len(self._waiting)

    def forget(self) -> None:
        """Leave out the reports that nobody waits for any more."""
        self._waiting[:] = [item for item in self._waiting if not item[1].done()]

    async def probe(self) -> str | None:
        """Export nothing, and return why that was not delivered."""
        if self._probe is None:
            loop = asyncio.get_running_loop()
            self._probe = loop.run_in_executor(self._thread, self._export, [])
            self._probe.add_done_callback(self._probed)
        # Whoever asks meanwhile has the same answer, as calls wait for each probe.
        return await asyncio.shield(self._probe)

    def _probed(self, _: object) -> None:
        self._probe = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            together = self._waiting[:MOST_TOGETHER]
            del self._waiting[:MOST_TOGETHER]
            reports = [report for report, result in together if not result.done()]
            if not reports:
                continue
            try:
                problem = await loop.run_in_executor(self._thread, self._export, reports)
            except Exception as error:  # noqa: BLE001 - those that wait have to be answered
                problem = f"it could not be sent ({type(error).__name__})"
            for _, result in together:
                # Whoever has given up meanwhile waits no more.
                if not result.done():
                    result.set_result(problem)
        self._task = None
