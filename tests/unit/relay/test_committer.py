"""Reports that wait for an export share the next one, and each gets its own result."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from support.cases import FULL_ATTRIBUTES
from support.messages import new_session_id
from support.processes import WAIT_SECONDS
from support.starts import permit
from tbot_otel.connect import Report
from tbot_otel.relay import committer
from tbot_otel.relay.committer import Committer
from tbot_otel.relay.problems import CALL_TIMEOUT, Problem, unavailable

PERMITTED = permit(FULL_ATTRIBUTES)


class Export:
    """An export that waits for its gate. The first report of each has a problem."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Report]] = []
        self.begun = threading.Event()
        self.gate = threading.Event()

    def __call__(self, reports: Sequence[Report]) -> dict[Report, Problem | None]:
        """Export reports."""
        self.batches.append(reports)
        self.begun.set()
        assert self.gate.wait(WAIT_SECONDS)
        return dict.fromkeys(reports) | {reports[0]: unavailable("first")}


def make_reports(count: int) -> list[Report]:
    """Reports of different starts."""
    return [Report(new_session_id(), time.time_ns(), PERMITTED) for _ in range(count)]


def test_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later reports wait, in batches of a limited size, and know how long about."""
    monkeypatch.setattr(committer, "MAX_EXPORT_BATCH_SIZE", 2)
    export, reports = Export(), make_reports(6)

    async def run() -> list[Problem | None]:
        waiting = Committer(export)
        results = [waiting.commit(reports[0])]
        await asyncio.to_thread(export.begun.wait, WAIT_SECONDS)
        results += map(waiting.commit, reports[1:])
        waiting._export_seconds = 2.0
        assert (len(waiting), waiting.estimate_seconds()) == (5, 2.0 * 3)
        export.gate.set()
        return await asyncio.gather(*results)

    problems = asyncio.run(run())
    assert export.batches == [reports[:1], reports[1:3], reports[3:5], reports[5:]]
    assert [problem and problem.message for problem in problems] == [
        *("first", "first", None, "first", None, "first")
    ]


def test_abandoned_reports() -> None:
    """What no call waits for anymore is not exported, and disturbs no other report."""
    export, reports = Export(), make_reports(5)

    async def run() -> None:
        waiting = Committer(export)
        exported = waiting.commit(reports[0])
        await asyncio.to_thread(export.begun.wait, WAIT_SECONDS)
        dropped, late, first, last = map(waiting.commit, reports[1:])
        exported.set_result(CALL_TIMEOUT)
        dropped.set_result(CALL_TIMEOUT)
        waiting.drop_abandoned()
        assert len(waiting) == 3
        late.set_result(CALL_TIMEOUT)
        export.gate.set()
        assert await first == unavailable("first")
        assert await last is None
        # Nothing is left of a batch.
        waiting.commit(reports[0]).set_result(CALL_TIMEOUT)
        assert waiting._task is not None
        await waiting._task

    asyncio.run(run())
    assert export.batches == [reports[:1], reports[3:]]


def test_failed_export() -> None:
    """If an export raises an error, its calls get a response, and the next report is exported."""
    exports: list[Sequence[Report]] = []

    def export(reports: Sequence[Report]) -> dict[Report, Problem | None]:
        exports.append(reports)
        if len(exports) == 1:
            raise KeyError
        return dict.fromkeys(reports)

    async def run() -> list[Problem | None]:
        waiting = Committer(export)
        return [await waiting.commit(report) for report in make_reports(2)]

    failed, delivered = asyncio.run(run())
    assert failed == unavailable("the export failed (KeyError)")
    assert delivered is None
