"""Exports reports, and finds those among them that the Collector rejects."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connectrpc.code import Code

from tbot_otel.connect import Report
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.arguments import Arguments
from tbot_otel.otlp.responses import Rejection, ResponseObserver
from tbot_otel.otlp.send import build_exporter, export_and_observe
from tbot_otel.otlp.settings import read_settings
from tbot_otel.relay.batch import ReportBatch, install_batch_encoder
from tbot_otel.relay.problems import Problem, unavailable
from tbot_otel.session import Status

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter

    from tbot_otel.policy import Permitted
    from tbot_otel.relay.log import ChangeLog
    from tbot_otel.relay.metrics import WorkerMetrics

MAX_SPLIT_EXPORTS = 64
"""The most exports that look for the rejected reports of one batch."""
MAX_ACCEPTED_SETS = 1024
"""The most sets of attributes that are remembered as accepted."""
WARY_SECONDS = 60.0
"""How long after a rejection only accepted sets of attributes are exported together."""
MAX_APART_SECONDS = 0.05
"""The longest time that the other reports of a batch take, each set of attributes apart."""
PROBE_TIMEOUT_SECONDS = 0.75
"""The timeout of an empty export. It is too short for the exporter to wait and try again."""


class ReportExporter:
    """Exports reports to the Collector that the variables name.

    Args:
        metrics: Records each export.
        change_log: Logs whether the Collector accepts exports.

    Attributes:
        problem: Why the Collector did not accept the last export; None if it did.
        exported_at: When that export ended, by the monotonic clock; at first, now.

    Raises:
        ExporterConfigurationError: See `check`.
    """

    def __init__(self, metrics: "WorkerMetrics", change_log: "ChangeLog") -> None:
        self.problem: str | None = "there was no export yet"
        self.exported_at: float = time.monotonic()
        self._metrics = metrics
        self._change_log = change_log
        self._observer = ResponseObserver()
        self._exporter = _build_exporter(Arguments(), self._observer)
        self._probe_exporter = _build_exporter(
            Arguments(timeout=PROBE_TIMEOUT_SECONDS * 1000), self._observer
        )
        install_batch_encoder()
        # The last ones, in the order of their last export.
        self._accepted: dict[Permitted, None] = {}
        self._wary_until = float("-inf")

    def export(self, reports: Sequence[Report]) -> dict[Report, Problem | None]:
        """Export reports, and return the problem of each; None if the Collector accepted it.

        After a rejection, reports whose attributes were accepted before are exported first, so
        that the others do not spoil their export.
        """
        problems: dict[Report, Problem | None] = {}
        if time.monotonic() >= self._wary_until:
            self._export_group([*reports], problems)
        else:
            self._export_apart(reports, problems)
        # A Collector that accepts some of them accepts exports.
        messages = [problem and problem.message for problem in problems.values()]
        self._set_problem(None if None in messages else messages[0])
        return problems

    def _export_apart(
        self, reports: Sequence[Report], problems: dict[Report, Problem | None]
    ) -> None:
        accepted = []
        others: dict[Permitted, list[Report]] = {}
        for report in reports:
            if report.permitted in self._accepted:
                accepted.append(report)
            else:
                others.setdefault(report.permitted, []).append(report)
        if accepted:
            self._export_group(accepted, problems)
        stop_at = time.monotonic() + MAX_APART_SECONDS
        for group in others.values():
            if time.monotonic() < stop_at:
                self._export_group(group, problems)
            else:
                problem = "the Collector rejects other reports, and this one had to wait too long"
                problems.update(dict.fromkeys(group, unavailable(problem)))

    def _export_group(self, group: list[Report], problems: dict[Report, Problem | None]) -> None:
        """Export reports; where the Collector refuses a whole export, again in halves."""
        parts = [group]
        for _ in range(MAX_SPLIT_EXPORTS):
            part = parts.pop()
            problem = self._export_once(part)
            sets = {report.permitted for report in part}
            if problem is None:
                problems.update(dict.fromkeys(part))
                self._remember(sets)
            elif self._observer.rejection is Rejection.ALL and len(sets) > 1:
                part.sort(key=lambda report: repr(report.permitted.attributes))
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            else:
                rejection = self._observer.rejection
                if rejection is not None:
                    self._distrust(sets)
                # Which of them a partial success rejects is not known, and OTLP forbids sending it
                # again.
                if rejection is Rejection.ALL or (rejection and len(part) == 1):
                    found = Problem("rejected", Code.INVALID_ARGUMENT, problem)
                else:
                    found = unavailable(problem)
                problems.update(dict.fromkeys(part, found))
            if not parts:
                return
        for part in parts:
            problem = "the Collector refused it together with other reports"
            problems.update(dict.fromkeys(part, unavailable(problem)))

    def _export_once(self, reports: Sequence[Report]) -> str | None:
        started_at = time.monotonic()
        outcome = export_and_observe(self._exporter, self._observer, ReportBatch(reports))
        problem = None if outcome.status is Status.DELIVERED else outcome.reason
        seconds = time.monotonic() - started_at
        self._metrics.record_export(len(reports), seconds, delivered=problem is None)
        return problem

    def _remember(self, sets: set["Permitted"]) -> None:
        for permitted in sets:
            self._accepted.pop(permitted, None)
            self._accepted[permitted] = None
        while len(self._accepted) > MAX_ACCEPTED_SETS:
            del self._accepted[next(iter(self._accepted))]

    def _distrust(self, sets: set["Permitted"]) -> None:
        self._wary_until = time.monotonic() + WARY_SECONDS
        # If one was never accepted, it is the culprit.
        if sets <= self._accepted.keys():
            for permitted in sets:
                del self._accepted[permitted]

    def probe(self) -> None:
        """Export no records, and set `problem`."""
        outcome = export_and_observe(self._probe_exporter, self._observer, ReportBatch([]))
        self._set_problem(None if outcome.status is Status.DELIVERED else outcome.reason)

    def _set_problem(self, problem: str | None) -> None:
        self.exported_at = time.monotonic()
        if problem != self.problem:
            # On a change only: there can be hundreds of exports a second.
            self.problem = problem
            self._change_log.log_change(problem)

    def shutdown(self) -> None:
        """Close the connections."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._probe_exporter.shutdown()  # type: ignore[no-untyped-call]


def check() -> None:
    """Check the variables.

    Raises:
        ExporterConfigurationError: They are invalid, or hide the Collector's responses.
    """
    _build_exporter(Arguments(), ResponseObserver()).shutdown()  # type: ignore[no-untyped-call]


def _build_exporter(arguments: Arguments, observer: ResponseObserver) -> "LogRecordExporter":
    exporter = build_exporter(read_settings(arguments), observer)
    if not observer.is_attached:
        raise ExporterConfigurationError(
            "the relay cannot observe the Collector's responses: "
            "a credential provider's session, or this exporter's version, hides them"
        )
    return exporter
