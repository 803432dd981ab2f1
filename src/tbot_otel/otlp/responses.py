"""The Collector's responses, which the official exporters do not report."""

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    import requests
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

NOT_ACCEPTED = "the Collector did not accept the export"
_NOT_OTLP = "the response is not from an OTLP receiver"


class ResponseObserver(threading.local):
    """The response to this thread's last export.

    Exporters send on the thread that calls them, so each thread sees its own response.

    Attributes:
        problem: Why the response is not a success; None if it is, or was not observed.
    """

    problem: str | None = None

    def reset(self) -> None:
        """Forget the last export."""
        self.problem = None

    def observe_http(self, response: "requests.Response", **_: object) -> None:
        """Observe a response over HTTP. This is the response hook of a `requests.Session`."""
        if 200 <= response.status_code < 300:
            self.problem = _find_http_problem(response)
        else:
            self.problem = f"the Collector responded with {response.status_code}"

    def observe_grpc(self, response: "ExportLogsServiceResponse") -> None:
        """Observe a successful response over gRPC."""
        self.problem = _describe_rejected(response.partial_success.rejected_log_records)


def _find_http_problem(response: "requests.Response") -> str | None:
    # The exporter has imported these already.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    if not response.content:
        return None
    content_type = response.headers.get("Content-Type", "")
    try:
        if content_type.startswith("application/json"):
            partial = response.json().get("partialSuccess") or {}
            rejected = int(partial.get("rejectedLogRecords") or 0)
        elif content_type.startswith("text/"):
            return _NOT_OTLP
        else:
            message = ExportLogsServiceResponse.FromString(response.content)
            rejected = message.partial_success.rejected_log_records
    except (AttributeError, TypeError, ValueError, DecodeError):
        return _NOT_OTLP
    return _describe_rejected(rejected)


def _describe_rejected(count: int) -> str | None:
    return f"the Collector rejected {count} of the records sent" if count else None
