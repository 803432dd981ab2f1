"""The Collector's responses, which the official exporters do not report."""

import threading

from tbot_otel.session import Outcome, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    from tbot_otel.consent import Consent

NOT_OTLP = "the response is not from an OTLP receiver"
# https://opentelemetry.io/docs/specs/otlp/#failures-1
_RETRYABLE_STATUSES = (429, 502, 503, 504)
TIMED_OUT = "the Collector did not respond in time"


class ConsentWithdrawnError(Exception):
    """Consent was withdrawn before an attempt. No exporter retries after this error."""


class ResponseObserver:
    """The outcome of this thread's last export, and the consent that each attempt needs.

    Exporters send on the thread that calls them, so each thread sees its own response.

    Args:
        get_consent: Returns the consent as it is now; None if no consent is needed.

    Attributes:
        is_attached: Whether the exporter was built so that its responses are observed.
    """

    def __init__(self, get_consent: "Callable[[], Consent] | None" = None) -> None:
        self.is_attached: bool = False
        self._get_consent = get_consent
        self._thread = threading.local()

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the last attempt; None if it was not observed."""
        return getattr(self._thread, "outcome", None)

    def reset(self) -> None:
        """Forget the last export."""
        self._thread.outcome = None

    def check_consent(self) -> None:
        """Ask for consent. Call this before each attempt.

        Raises:
            ConsentWithdrawnError: There is no consent anymore.
        """
        if self._get_consent is None:
            return
        consent = self._get_consent()
        if not consent:
            self._thread.outcome = Outcome(Status.REFUSED, consent.reason)
            raise ConsentWithdrawnError(consent.reason)

    def fail(self, reason: str, *, can_retry: bool = False) -> None:
        """Record that an attempt failed, and whether a later one could succeed."""
        self._thread.outcome = Outcome(Status.FAILED, reason, can_retry=can_retry)

    def observe_http(self, status: int, content_type: str, body: bytes | None) -> None:
        """Observe a response over HTTP.

        Args:
            status: The status.
            content_type: The header ``Content-Type``; empty if there is none.
            body: The body of a successful response; None if it is too large.
        """
        if 200 <= status < 300:
            self._settle(_find_http_problem(content_type, body))
        else:
            reason = f"the Collector responded with {status}"
            self.fail(reason, can_retry=status in _RETRYABLE_STATUSES)

    def observe_grpc(self, response: "ExportLogsServiceResponse") -> None:
        """Observe a successful response over gRPC."""
        self._settle(_describe_rejected(response.partial_success.rejected_log_records))

    def _settle(self, problem: str | None) -> None:
        if problem is None:
            self._thread.outcome = Outcome(Status.DELIVERED, "the Collector accepted it")
        else:
            self.fail(problem)


def _find_http_problem(content_type: str, body: bytes | None) -> str | None:
    # The exporter has imported these already.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    if body == b"":
        return None
    if body is None or content_type.startswith("text/"):
        return NOT_OTLP
    try:
        if content_type.startswith("application/json"):
            import json

            partial = json.loads(body).get("partialSuccess") or {}
            rejected = int(partial.get("rejectedLogRecords") or 0)
        else:
            message = ExportLogsServiceResponse.FromString(body)
            rejected = message.partial_success.rejected_log_records
    except (AttributeError, RecursionError, TypeError, ValueError, DecodeError):
        return NOT_OTLP
    return _describe_rejected(rejected)


def _describe_rejected(count: int) -> str | None:
    return f"the Collector rejected {count} of the records sent" if count else None
