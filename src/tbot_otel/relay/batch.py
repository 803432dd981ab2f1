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
from tbot_otel.pipeline.record import PermittedRecord
from tbot_otel.pipeline.resource import anonymous_resource
from tbot_otel.policy import Permitted
from tbot_otel.session import Start

MAX_TEMPLATES = 1024
"""The most sets of attributes whose encoding is kept."""

_logger = logging.getLogger("tbot_otel.relay")


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
    def __getitem__(self, index: int) -> PermittedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PermittedRecord]: ...
    def __getitem__(self, index: int | slice) -> PermittedRecord | Sequence[PermittedRecord]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        report = self._reports[index]
        start = Start(report.session_id, report.timestamp)
        return PermittedRecord(report.permitted, start, include_host=False)

    def encode(self) -> ExportLogsServiceRequest:
        """Return the OTLP message of the records."""
        message = ExportLogsServiceRequest()
        for report in self._reports:
            logs = message.resource_logs.add()
            logs.CopyFrom(_template(report.permitted))
            logs.resource.attributes[_SESSION_ID_INDEX].value.string_value = report.session_id
            record = logs.scope_logs[0].log_records[0]
            record.time_unix_nano = report.timestamp
            record.observed_time_unix_nano = report.timestamp
        return message


@functools.lru_cache(maxsize=MAX_TEMPLATES)
def _template(permitted: Permitted) -> ResourceLogs:
    """Return the message of a report with these attributes, made by the official encoder."""
    (logs,) = encode_logs(ReportBatch([Report("-", 1, permitted)])).resource_logs
    return logs


_RESOURCE_ATTRIBUTES = anonymous_resource("-", include_host=False).attributes
_SESSION_ID_INDEX = [*_RESOURCE_ATTRIBUTES].index("session.id")


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
