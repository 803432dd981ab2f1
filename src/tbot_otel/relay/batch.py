"""A batch of reports, as the official exporters take it.

Each start has a Resource of its own, and to build, compare and encode those is most of what an
export costs. So a batch can make the message that goes on the wire itself, and the official
exporters, which have one function for that, are led to it. One that has no such function finds the
records in it.
"""

import time
from collections.abc import Sequence
from typing import overload

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.sdk._logs import ReadableLogRecord

from tbot_otel import otlp
from tbot_otel.connect import Report
from tbot_otel.events import START
from tbot_otel.record import EventLogRecord, readable
from tbot_otel.session import Session


class Batch(Sequence[ReadableLogRecord]):
    """Reports that are exported together.

    Args:
        reports: The reports.
    """

    def __init__(self, reports: Sequence[Report]) -> None:
        self._reports = reports
        self._made = time.time_ns()

    def __len__(self) -> int:
        return len(self._reports)

    @overload
    def __getitem__(self, index: int) -> ReadableLogRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReadableLogRecord]: ...
    def __getitem__(self, index: int | slice) -> ReadableLogRecord | Sequence[ReadableLogRecord]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        report = self._reports[index]
        record = EventLogRecord(
            START.name,
            report.attributes,
            Session.reported(report.session_id, report.timestamp),
            timestamp=report.timestamp,
            observed_timestamp=self._made,
        )
        return readable(record, here=False)

    def message(self) -> ExportLogsServiceRequest:
        """Return what an export of the records sends."""
        message = ExportLogsServiceRequest()
        for report in self._reports:
            logs = message.resource_logs.add()
            logs.CopyFrom(_SAME)
            logs.resource.attributes[_SESSION_ID].value.string_value = report.session_id
            record = logs.scope_logs[0].log_records[0]
            record.time_unix_nano = report.timestamp
            record.observed_time_unix_nano = self._made
            for name, value in report.attributes.items():
                attribute = record.attributes.add()
                attribute.key = name
                if isinstance(value, int):
                    attribute.value.int_value = value
                else:
                    attribute.value.string_value = value
        return message


def _same() -> ResourceLogs:
    """What is the same in every message, as the official encoder has it."""
    (logs,) = encode_logs(Batch([Report("", 1, {})])).resource_logs
    return logs


_SAME = _same()
_SESSION_ID = [attribute.key for attribute in _SAME.resource.attributes].index("session.id")


def lead_exporter_to_messages() -> None:
    """Let the official exporter that the variables ask for take the message of a batch."""
    module = otlp.import_exporter()
    if vars(module).get(encode_logs.__name__) is encode_logs:
        setattr(module, encode_logs.__name__, _encode)


def _encode(batch: Sequence[ReadableLogRecord]) -> ExportLogsServiceRequest:
    return batch.message() if isinstance(batch, Batch) else encode_logs(batch)
