"""The outcome of an export: what the exporter reports and what was observed must agree."""

from collections.abc import Callable

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult

from tbot_otel.otlp.responses import ResponseObserver
from tbot_otel.otlp.send import export_and_observe

# The SDK's constructor has no types.
make_in_memory_exporter: Callable[[], InMemoryLogRecordExporter] = InMemoryLogRecordExporter


@pytest.mark.parametrize(
    ("statuses", "result", "expected"),
    [
        ([200], LogRecordExportResult.SUCCESS, "DELIVERED"),
        ([503, 200], LogRecordExportResult.SUCCESS, "DELIVERED"),
        ([200], LogRecordExportResult.FAILURE, "FAILED"),
        ([200], RuntimeError(), "FAILED"),
        ([], LogRecordExportResult.SUCCESS, "UNOBSERVED"),
        ([], LogRecordExportResult.FAILURE, "FAILED"),
        ([], RuntimeError(), "FAILED"),
        ([400], LogRecordExportResult.SUCCESS, "FAILED"),
        ([200, 400], LogRecordExportResult.FAILURE, "FAILED"),
    ],
)
def test_outcome(
    statuses: list[int],
    result: LogRecordExportResult | Exception,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is DELIVERED only if the last response accepted it and the exporter agrees."""
    observer = ResponseObserver()
    exporter = make_in_memory_exporter()

    def export(_: object) -> LogRecordExportResult:
        for status in statuses:
            observer.observe_http(status, "", b"")
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(exporter, "export", export)
    assert export_and_observe(exporter, observer, []).status.name == expected


def test_forgets_the_export_before() -> None:
    """A response to one export is not taken for that of the next."""
    observer = ResponseObserver()
    observer.observe_http(200, "", b"")
    assert export_and_observe(make_in_memory_exporter(), observer, []).status.name == "UNOBSERVED"
