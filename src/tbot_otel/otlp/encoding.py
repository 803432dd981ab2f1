"""OTLP/JSON."""

from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord


def to_json(batch: "Sequence[ReadableLogRecord]", *, indent: int | None = 2) -> str:
    """Return the export of a batch as OTLP/JSON; without an indent, on one line."""
    # OTLP/JSON has enums as numbers (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
    return str(MessageToJson(encode_logs(batch), indent=indent, use_integers_for_enums=True))
