"""The batches of the relay, and the encoder that official exporters use for them."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from support.cases import FULL_ATTRIBUTES
from support.fuzzing import examples
from support.messages import INT32_MAX, new_session_id
from support.starts import permit
from tbot_otel.connect import Report
from tbot_otel.otlp.environment import EXPORTER_MODULES
from tbot_otel.otlp.responses import ResponseObserver
from tbot_otel.otlp.send import export_and_observe
from tbot_otel.policy import Permitted
from tbot_otel.relay.batch import ReportBatch, install_batch_encoder
from tbot_otel.session import Status

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
ATTRIBUTES: st.SearchStrategy[dict[str, str | int]] = st.fixed_dictionaries(
    {},
    optional={
        name: st.integers(0, INT32_MAX) if isinstance(value, int) else TEXTS
        for name, value in FULL_ATTRIBUTES.items()
    },
)
PERMITTED = ATTRIBUTES.map(lambda attributes: Permitted("tbot.start", attributes, []))
REPORTS = st.builds(Report, st.uuids(version=4).map(str), st.integers(1, 2**63 - 1), PERMITTED)


@examples(60)
@given(st.lists(REPORTS, max_size=5, unique_by=lambda report: report.session_id))
def test_encode(reports: list[Report]) -> None:
    """A batch encodes to the same bytes as the official encoder's message of its records."""
    batch = ReportBatch(reports)
    assert len(batch) == len(reports) == len(batch[:])
    assert batch.encode().SerializeToString() == encode_logs([*batch]).SerializeToString()


class RecordingExporter(LogRecordExporter):
    """An exporter that keeps the records that it reads."""

    def __init__(self) -> None:
        self.records: list[ReadableLogRecord] = []

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Keep the records."""
        self.records.extend(batch)
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Do nothing."""
        return bool(timeout_millis)


def test_exporter_without_the_encoding_function(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that encodes in another way reads the records of a batch. The log says so."""
    monkeypatch.delattr(f"{EXPORTER_MODULES['http/protobuf']}._log_exporter.encode_logs")
    install_batch_encoder()
    assert caplog.messages == [
        "exports take longer: this exporter's encoding could not be replaced"
    ]
    batch = ReportBatch(
        [
            Report(new_session_id(), time.time_ns(), permit(FULL_ATTRIBUTES)),
            Report(new_session_id(), time.time_ns(), permit({})),
        ]
    )
    exporter = RecordingExporter()
    outcome = export_and_observe(exporter, ResponseObserver(), batch)
    assert outcome.status is Status.UNOBSERVED
    assert encode_logs(exporter.records) == batch.encode()
