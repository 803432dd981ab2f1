"""record_start: one start, one session, one record, and never in the caller's way."""

from tbot_otel.consent import OptInSampler
from tbot_otel.events import StartEvent
from tbot_otel.session import Outcome, Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider


def record_start(event: StartEvent, *, logger_provider: "LoggerProvider | None" = None) -> Session:
    """Record a start of tbot, in the background.

    Without consent nothing happens. With it, a record is made and sent over OTLP, through a
    pipeline of its own, to where the standard ``OTEL_EXPORTER_OTLP_*`` variables say. When the
    process exits, it waits for the record for at most 2 seconds, or
    ``OTEL_EXPORTER_OTLP_[LOGS_]TIMEOUT`` seconds if that is shorter. A forked child of
    `multiprocessing` leaves without waiting: call `Session.flush` in it.

    Args:
        event: The start.
        logger_provider: A pipeline of yours to emit the record into. Whatever processors and
            exporters it has see the record under that pipeline's own Resource;
            `TbotLogExporter` sends it under the anonymous one. It is flushed after the record, in
            the background, and its own shutdown may make an exit longer.

    Returns:
        The session of this start. Its `flush` waits for the record and says what became of it.

    Raises:
        TypeError: An argument is of a wrong type. Nothing else is raised, whatever goes wrong.
    """
    if not isinstance(event, StartEvent):
        raise TypeError("event: expected a StartEvent")
    if logger_provider is not None and not callable(getattr(logger_provider, "get_logger", None)):
        raise TypeError("logger_provider: expected a LoggerProvider")
    session = Session()
    consent = OptInSampler().should_sample()
    if not consent.granted:
        session.settle(Outcome(Status.REFUSED, consent.reason))
        return session
    try:
        # Imported on the thread, the SDK would register its exit handlers too late.
        import opentelemetry.sdk._logs  # noqa: F401 - the thread needs it

        from tbot_otel import sender

        sender.submit(event, session, logger_provider)
    except Exception as error:  # noqa: BLE001 - nothing of ours may stop the caller
        session.fail(error)
    return session
