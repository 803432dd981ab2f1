"""Exports to a Collector that rejects some reports because of their content."""

import time
from collections.abc import Iterator, Sequence
from itertools import chain

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.cases import FULL_ATTRIBUTES
from support.messages import new_session_id
from support.otlp import partial_success
from support.relay_clients import exported_session_ids
from support.standins import HTTPStandin, ReceivedRequest, Response
from support.starts import permit
from tbot_otel.connect import Report
from tbot_otel.relay import exporting
from tbot_otel.relay.exporting import ReportExporter
from tbot_otel.relay.log import ChangeLog
from tbot_otel.relay.metrics import WorkerMetrics
from tbot_otel.relay.problems import Problem

REFUSED = Response(400)
PARTIAL = Response(200, partial_success(1).SerializeToString())


class PickyStandin(HTTPStandin):
    """A stand-in that rejects the exports with a report of a version that begins with a text."""

    response = REFUSED
    rejected = "99."

    def choose_response(self, request: ReceivedRequest) -> Response:
        """Return the response to a request."""
        message = ExportLogsServiceRequest.FromString(request.body)
        is_rejected = any(
            attribute.value.string_value.startswith(self.rejected)
            for logs in message.resource_logs
            for attribute in logs.scope_logs[0].log_records[0].attributes
        )
        return self.response if is_rejected else Response()


def report(version: str) -> Report:
    """A report of a version."""
    attributes = {**FULL_ATTRIBUTES, "tbot.version": version}
    return Report(new_session_id(), time.time_ns(), permit(attributes))


@pytest.fixture(name="standin")
def picky_standin() -> Iterator[PickyStandin]:
    """A stand-in for the Collector."""
    with PickyStandin(Response()) as standin:
        yield standin


@pytest.fixture(name="exporter")
def exporter_to_standin(
    standin: PickyStandin, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ReportExporter]:
    """An exporter to that stand-in."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", standin.endpoint)
    # However slow this machine is.
    monkeypatch.setattr(exporting, "MAX_APART_SECONDS", 60.0)
    change_log = ChangeLog("it succeeds", "it fails")
    exporter = ReportExporter(WorkerMetrics(change_log), change_log)
    yield exporter
    exporter.shutdown()


def reasons(problems: dict[Report, Problem | None], reports: Sequence[Report]) -> list[str | None]:
    """The reasons that these reports were not delivered; None for those that were."""
    return [problem and problem.reason for problem in map(problems.get, reports)]


def test_refused_export(standin: PickyStandin, exporter: ReportExporter) -> None:
    """If the Collector refuses an export, the honest reports in it are delivered, once each."""
    reports = [report("99.9.9" if number in (3, 11) else "18.3.0") for number in range(20)]
    problems = exporter.export(reports)
    assert reasons(problems, reports) == [
        "rejected" if number in (3, 11) else None for number in range(20)
    ]
    exported = list(chain(*exported_session_ids(standin)))
    assert exported.count(reports[0].session_id) > 1
    # Equal sets of attributes stay together, so that few exports find those at fault.
    assert len(standin.requests) <= 10
    # It accepts exports, although it rejects some reports.
    assert exporter.problem is None
    # The next culprit is exported apart, and spoils no export.
    before = len(standin.requests)
    reports = [report("99.9.9"), report("18.3.0"), report("18.3.0"), report("99.9.9")]
    assert reasons(exporter.export(reports), reports) == ["rejected", None, None, "rejected"]
    assert len(standin.requests) == before + 2


def test_partial_success(standin: PickyStandin, exporter: ReportExporter) -> None:
    """After a partial success nothing is sent again, and the next reports are exported apart."""
    standin.response = PARTIAL
    reports = [report(version) for version in ("99.9.9", "18.3.0", "18.3.1")]
    assert reasons(exporter.export(reports), reports) == ["unavailable"] * 3
    reports += [report(version) for version in ("99.9.9", "18.3.0", "18.3.1")]
    assert reasons(exporter.export(reports[3:]), reports[3:]) == ["rejected", None, None]
    exported = list(chain(*exported_session_ids(standin)))
    assert sorted(exported) == sorted(report.session_id for report in reports)


@pytest.mark.parametrize("response", [REFUSED, PARTIAL], ids=["refused", "partial"])
def test_stranger_who_varies(
    response: Response,
    standin: PickyStandin,
    exporter: ReportExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reports whose attributes were accepted before are delivered beside any rejected ones."""
    standin.response = response
    monkeypatch.setattr(exporting, "MAX_APART_SECONDS", 0.0)
    honest = [f"18.{number}.0" for number in range(10)]
    reports = [report(version) for version in honest]
    exporter.export(reports)
    for number in range(20):
        strange = [report(f"99.{number}.{patch}") for patch in range(10)]
        reports = [report(version) for version in honest]
        problems = exporter.export([*strange, *reports])
        if number:
            assert reasons(problems, reports) == [None] * 10
            assert set(reasons(problems, strange)) == {"unavailable"}


def test_collector_that_changes_its_mind(standin: PickyStandin, exporter: ReportExporter) -> None:
    """Attributes that were accepted, and are rejected later, spoil one export, and not the next."""
    versions = ("18.3.0", "18.3.1")
    exporter.export([report(version) for version in versions])
    exported_at = exporter.exported_at
    standin.response, standin.rejected = PARTIAL, "18.3.0"
    for expected in (["unavailable", "unavailable"], ["rejected", None]):
        reports = [report(version) for version in versions]
        assert reasons(exporter.export(reports), reports) == expected
    # It accepts exports, although not the first one of these.
    assert exporter.problem is None
    assert exporter.exported_at > exported_at


def test_too_many_rejected(exporter: ReportExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the allowed exports do not find the rejected report, the rest are not acknowledged."""
    monkeypatch.setattr(exporting, "MAX_SPLIT_EXPORTS", 3)
    reports = [report(f"99.{number}.0") for number in range(8)]
    found = reasons(exporter.export(reports), reports)
    assert sorted(map(str, found)) == ["unavailable"] * 8


def test_wary_for_a_minute(
    standin: PickyStandin, exporter: ReportExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some time after the last rejection, all reports share an export again."""
    exporter.export([report("99.9.9")])
    before = len(standin.requests)
    reports = [report(f"18.{number}.0") for number in range(4)]
    exporter.export(reports)
    assert len(standin.requests) == before + 4
    later = time.monotonic() + exporting.WARY_SECONDS
    monkeypatch.setattr("tbot_otel.relay.exporting.time.monotonic", lambda: later)
    exporter.export([report(f"18.{number}.1") for number in range(4)])
    assert len(standin.requests) == before + 5


def test_accepted_sets_are_bounded(
    exporter: ReportExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the sets of attributes that were exported last are remembered."""
    monkeypatch.setattr(exporting, "MAX_ACCEPTED_SETS", 3)
    for number in (1, 2, 3, 1, 4):
        exporter.export([report(f"18.{number}.0")])
    versions = [permitted.attributes["tbot.version"] for permitted in exporter._accepted]
    assert versions == ["18.3.0", "18.1.0", "18.4.0"]
