"""OTLP data: the values that tests expect, send and receive."""

import json
import platform
from importlib.metadata import version
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from support.standins import ReceivedRequest

PROTOCOLS = ["http/protobuf", "grpc"]
# The HTTP exporter of 1.39 retries neither a response of 429 nor a refused connection.
HTTP_EXPORTER_RETRIES = not version("opentelemetry-exporter-otlp-proto-http").startswith("1.39.")


def attribute_values(attributes: list[dict[str, Any]]) -> dict[str, object]:
    """Convert OTLP/JSON attributes to a dict."""
    result: dict[str, object] = {}
    for attribute in attributes:
        (kind, value), *_ = attribute["value"].items()
        result[attribute["key"]] = int(value) if kind == "intValue" else value
    return result


def record_attributes(printed: str) -> dict[str, object]:
    """The attributes of the one record in printed OTLP/JSON."""
    (logs,) = json.loads(printed)["resourceLogs"]
    (record,) = logs["scopeLogs"][0]["logRecords"]
    return attribute_values(record["attributes"])


def expected_resource(session_id: str) -> dict[str, object]:
    """All attributes that the Resource of a start on this machine may have."""
    machine = platform.machine().lower()
    return {
        "service.name": "tbot",
        "session.id": session_id,
        "os.type": platform.system().lower(),
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": version("opentelemetry-sdk"),
    }


def received_records(requests: list[ReceivedRequest]) -> list[tuple[dict[str, object], LogRecord]]:
    """The records in export requests, each with the attributes of its Resource."""
    exports = [ExportLogsServiceRequest.FromString(request.body) for request in requests]
    return [
        (attribute_values(MessageToDict(logs.resource)["attributes"]), record)
        for export in exports
        for logs in export.resource_logs
        for scope in logs.scope_logs
        for record in scope.log_records
    ]


def partial_success(rejected: int) -> ExportLogsServiceResponse:
    """A response that rejects this many records."""
    return ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(
            rejected_log_records=rejected, error_message="too long"
        )
    )
