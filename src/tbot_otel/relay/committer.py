"""Group commit: the reports that wait share one export, and each learns what became of it."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tbot_otel.connect import ANSWER_WITHIN, Report

MOST_TOGETHER = 2048
"""The most reports of an export."""

# An export costs as much as a hundred reports in it, so the more reports there were, the longer the
# next ones may gather. A report that comes alone finds no pause.
_PAUSE_EACH = 0.0002
_LONGEST_PAUSE = 0.01
_LOOK_EVERY = 0.1
_TOO_LATE = "the Collector has not taken it in time"


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
        # A timer for each would cost more than the rest of this.
        self._deadlines: deque[tuple[float, asyncio.Future[str | None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._looking = False
        self._probe: asyncio.Future[str | None] | None = None

    async def commit(self, report: Report) -> str | None:
        """Wait until a report is exported, at most `ANSWER_WITHIN`.

        Returns:
            Why it was not delivered.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[str | None] = loop.create_future()
        self._waiting.append((report, result))
        self._deadlines.append((loop.time() + ANSWER_WITHIN, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if not self._looking:
            self._looking = True
            loop.call_later(_LOOK_EVERY, self._look)
        return await result

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

    async def drain(self) -> None:
        """Wait for what is under way."""
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=False)

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
            if len(together) > 1:
                await asyncio.sleep(min(_LONGEST_PAUSE, _PAUSE_EACH * len(together)))
        self._task = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._deadlines:
            deadline, result = self._deadlines[0]
            if deadline > now and not result.done():
                break
            self._deadlines.popleft()
            if not result.done():
                result.set_result(_TOO_LATE)
        self._looking = bool(self._deadlines)
        if self._looking:
            loop.call_later(_LOOK_EVERY, self._look)
