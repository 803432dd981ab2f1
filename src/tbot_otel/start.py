"""record_start: records one start without delaying the caller."""

from tbot_otel.consent import OptInSampler
from tbot_otel.events import StartEvent
from tbot_otel.session import Outcome, Session, Status, new_for_pipeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider


def record_start(event: StartEvent, *, logger_provider: "LoggerProvider | None" = None) -> Session:
    """Record a start of tbot, in the background.

    Without consent this does nothing. With consent, a record is sent over OTLP, through a private
    pipeline, to the endpoint in the standard ``OTEL_EXPORTER_OTLP_*`` variables. At exit, the
    process waits for the record for at most 2 seconds, or ``OTEL_EXPORTER_OTLP_[LOGS_]TIMEOUT``
    seconds if that is shorter. Call this before the main thread ends: after that, as in an exit
    handler, the outcome of a first call is FAILED, and a later call may need `Session.flush`.

    Args:
        event: The start.
        logger_provider: Your own pipeline to emit the record into. Its processors and exporters
            see the record with that pipeline's Resource; `OptInLogRecordProcessor` and
            `TbotLogExporter` pass it on with the anonymous one. The pipeline is flushed after the
            record, in the background. Its own shutdown can delay the exit.

    Returns:
        The session of this start. Its `flush` waits for the record and returns the outcome.

    Raises:
        TypeError: An argument has the wrong type. No other error is raised.
    """
    if not isinstance(event, StartEvent):
        raise TypeError("event: expected a StartEvent")
    if logger_provider is not None and not callable(getattr(logger_provider, "get_logger", None)):
        raise TypeError("logger_provider: expected a LoggerProvider")
    session = Session() if logger_provider is None else new_for_pipeline()
    consent = OptInSampler().should_sample()
    if not consent:
        session.settle(Outcome(Status.REFUSED, consent.reason))
        return session
    try:
        from tbot_otel import sender

        sender.submit(event, session, logger_provider)
    except Exception as error:  # noqa: BLE001 - an error must not reach the caller
        session.fail(error)
    return session
