"""A batch that encodes itself."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.sdk._logs import ReadableLogRecord

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest


class EncodedBatch(Sequence[ReadableLogRecord]):
    """A batch that builds its own OTLP message."""

    @abstractmethod
    def encode(self) -> "ExportLogsServiceRequest":
        """Return the OTLP message of the records."""
