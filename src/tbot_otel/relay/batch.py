"""A batch of reports that official exporters accept, with a faster encoding.

Each start has its own Resource. Building, comparing and encoding those is most of an export's
cost. A `ReportBatch` builds the OTLP message itself. Where an exporter cannot be made to use that,
it reads the records.
"""

import functools
import logging
from collections.abc import Sequence
from typing import overload

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.sdk._logs import ReadableLogRecord

from tbot_otel.connect import Report
from tbot_otel.otlp import send
from tbot_otel.otlp.send import SelfEncodingBatch
from tbot_otel.pipeline.record import EventLogRecord, to_readable
from tbot_otel.registry import START
from tbot_otel.session import Session

MAX_TEMPLATES = 1024
"""The most sets of attributes whose encoding is kept."""

_logger = logging.getLogger("tbot_otel.relay")

Attributes = tuple[tuple[str, str | int], ...]


class ReportBatch(SelfEncodingBatch):
    """Reports that are exported together.

    Args:
        reports: The reports.
    """

    def __init__(self, reports: Sequence[Report]) -> None:
        self._reports = reports

    def __len__(self) -> int:
        return len(self._reports)

    @overload
    def __getitem__(self, index: int) -> ReadableLogRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReadableLogRecord]: ...
    def __getitem__(self, index: int | slice) -> ReadableLogRecord | Sequence[ReadableLogRecord]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        report = self._reports[index]
        record = EventLogRecord(
            START.name,
            report.attributes,
            Session.from_report(report.session_id, report.timestamp),
            report.timestamp,
        )
        return to_readable(record, include_host=False)

    def encode(self) -> ExportLogsServiceRequest:
        """Return the OTLP message of the records."""
        message = ExportLogsServiceRequest()
        for report in self._reports:
            logs = message.resource_logs.add()
            logs.CopyFrom(_template(attributes_of(report)))
            logs.resource.attributes[_SESSION_ID_INDEX].value.string_value = report.session_id
            record = logs.scope_logs[0].log_records[0]
            record.time_unix_nano = report.timestamp
            record.observed_time_unix_nano = report.timestamp
        return message


def attributes_of(report: Report) -> Attributes:
    """Return the attributes of a report, in a form that can be compared and hashed."""
    return tuple(report.attributes.items())


@functools.lru_cache(maxsize=MAX_TEMPLATES)
def _template(attributes: Attributes) -> ResourceLogs:
    """Return the message of a report with these attributes, made by the official encoder."""
    (logs,) = encode_logs(ReportBatch([Report("", 1, dict(attributes))])).resource_logs
    return logs


_SESSION_ID_INDEX = [item.key for item in _template(()).resource.attributes].index("session.id")


def install_batch_encoder() -> None:
    """Make the official exporter that the variables select use `ReportBatch.encode`.

    gRPC's exporter has the method `_translate_data` for it, which `tbot_otel.otlp.grpc` overrides.
    That of HTTP calls the function `encode_logs` of its module, which is replaced.
    """
    module = send.import_exporter_module()
    if hasattr(getattr(module, "OTLPLogExporter", None), "_translate_data"):
        return
    if vars(module).get(encode_logs.__name__) in (encode_logs, _encode):
        setattr(module, encode_logs.__name__, _encode)
    else:
        _logger.warning("exports take longer: this exporter's encoding could not be replaced")


def _encode(batch: Sequence[ReadableLogRecord]) -> ExportLogsServiceRequest:
    return batch.encode() if isinstance(batch, ReportBatch) else encode_logs(batch)
