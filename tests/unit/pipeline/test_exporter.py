"""TbotLogExporter tells its processor the truth."""

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from tbot_otel import TbotLogExporter


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("event", "succeeds", "expected"),
    [("tbot.start", True, "SUCCESS"), ("tbot.start", False, "FAILURE"), ("x", False, "SUCCESS")],
)
def test_result(event: str, succeeds: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export fails if a record that may leave was not accepted."""
    inner = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK's
    result = LogRecordExportResult.SUCCESS if succeeds else LogRecordExportResult.FAILURE
    monkeypatch.setattr(inner, "export", lambda _: result)
    record = ReadableLogRecord(LogRecord(event_name=event), Resource.get_empty())
    assert TbotLogExporter(inner).export([record]).name == expected
