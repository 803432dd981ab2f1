"""The Collector's responses, which the official exporters do not report."""

import threading
from enum import Enum

from tbot_otel.session import Outcome, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    from tbot_otel.consent import Consent

NOT_OTLP = "the response is not from an OTLP receiver"
NOT_HTTP = "the response is not HTTP/1.1"
NOT_GRPC = "the response is not gRPC"
# https://opentelemetry.io/docs/specs/otlp/#failures-1
_RETRYABLE_STATUSES = (429, 502, 503, 504)
TIMED_OUT = "the Collector did not respond in time"
SAYS_NOTHING = "the response does not say whether the Collector accepted it"
_OTLP_MEDIA_TYPES = ("application/x-protobuf", "application/json")
_PARTIAL_SUCCESS = {"partialSuccess", "partial_success"}


class Rejection(Enum):
    """Which records of an export the Collector rejected because of their content."""

    ALL = "all"
    """It refused the export, and accepted none of the records."""
    SOME = "some"
    """It accepted the others (partial success). OTLP forbids sending any of them again."""


class ConsentWithdrawnError(Exception):
    """Consent was withdrawn before an attempt. No exporter retries after this error."""


class ResponseObserver:
    """The outcome of this thread's last export, and the consent that each attempt needs.

    Exporters send on the thread that calls them, so each thread sees its own response.

    Args:
        get_consent: Returns the consent as it is now; None if no consent is needed.

    Attributes:
        is_attached: Whether the exporter was built so that its responses are observed.
        last_problem: Why the last attempt failed, on any thread; None if there was none.
    """

    def __init__(self, get_consent: "Callable[[], Consent] | None" = None) -> None:
        self.is_attached: bool = False
        self.last_problem: str | None = None
        self._get_consent = get_consent
        self._thread = threading.local()

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the last attempt; None if it was not observed."""
        return getattr(self._thread, "outcome", None)

    @property
    def rejection(self) -> "Rejection | None":
        """Which records of the last export the Collector rejected because of their content."""
        return getattr(self._thread, "rejection", None)

    def reset(self) -> None:
        """Forget the last export."""
        self._thread.outcome = None
        self._thread.rejection = None

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

    def fail(
        self,
        reason: str,
        *,
        can_retry: bool = False,
        is_timeout: bool = False,
        rejection: "Rejection | None" = None,
    ) -> None:
        """Record that an attempt failed.

        Args:
            reason: Why.
            can_retry: Whether a later attempt could succeed.
            is_timeout: Whether time ran out. If an earlier attempt has told more, that is kept.
            rejection: Which records the Collector rejected because of their content.
        """
        if is_timeout and self.outcome is not None:
            return
        self.last_problem = reason
        self._thread.outcome = Outcome(Status.FAILED, reason, can_retry=can_retry)
        self._thread.rejection = rejection

    def observe_http(self, status: int, content_type: str, body: bytes | None) -> None:
        """Observe a response over HTTP.

        Args:
            status: The status.
            content_type: The header ``Content-Type``; empty if there is none.
            body: The body of a successful response; None if it is too large.
        """
        if not 200 <= status < 300:
            self.fail(
                f"the Collector responded with {status}",
                can_retry=status in _RETRYABLE_STATUSES,
                rejection=Rejection.ALL if status == 400 else None,
            )
            return
        try:
            self._settle(_count_rejected(status, content_type, body))
        except ValueError:
            self.fail(NOT_OTLP)

    def observe_grpc(self, response: "ExportLogsServiceResponse") -> None:
        """Observe a successful response over gRPC."""
        self._settle(_count_rejected_by(response))

    def _settle(self, rejected: int | None) -> None:
        if rejected:
            self.fail(
                f"the Collector rejected {rejected} of the records sent", rejection=Rejection.SOME
            )
        elif rejected is None:
            self._thread.outcome = Outcome(Status.UNOBSERVED, SAYS_NOTHING)
        else:
            self._thread.outcome = Outcome(Status.DELIVERED, "the Collector accepted it")


def _count_rejected(status: int, content_type: str, body: bytes | None) -> int | None:
    """Return how many records the Collector rejected; None if the response does not say.

    Raises:
        ValueError: The response is not OTLP.
    """
    # The exporter has imported these already.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    media_type = content_type.partition(";")[0].strip().lower()
    if body == b"":
        # OTLP has no other status and type for the response that it leaves empty.
        is_otlp = status == 200 and media_type in ("", *_OTLP_MEDIA_TYPES)
        return 0 if is_otlp else None
    if body is None or media_type.startswith("text/"):
        raise ValueError(NOT_OTLP)
    if media_type == "application/json":
        return _count_rejected_in_json(body)
    try:
        return _count_rejected_by(ExportLogsServiceResponse.FromString(body))
    except DecodeError:
        raise ValueError(NOT_OTLP) from None


def _count_rejected_in_json(body: bytes) -> int | None:
    import json

    try:
        message = json.loads(body)
        # Both names are valid (https://protobuf.dev/programming-guides/json/#json-options).
        partial = message.get("partialSuccess", message.get("partial_success"))
        if message and not message.keys() & _PARTIAL_SUCCESS:
            return None
        partial = partial or {}
        rejected = partial.get("rejectedLogRecords", partial.get("rejected_log_records"))
        return int(rejected or 0)
    except (AttributeError, RecursionError, TypeError):
        raise ValueError(NOT_OTLP) from None


def _count_rejected_by(message: "ExportLogsServiceResponse") -> int | None:
    # One that has only fields of another message is another message.
    if not message.HasField("partial_success") and message.ByteSize():
        return None
    return int(message.partial_success.rejected_log_records)


def describe_error(error: BaseException) -> str:
    """Return an error's type and the module that raised it, without its text."""
    traceback = error.__traceback__
    module = ""
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return f"{type(error).__name__} in {module}" if module else type(error).__name__
