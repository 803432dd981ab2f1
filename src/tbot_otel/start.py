"""record_start: records one start without delaying the caller."""

from collections import deque

from tbot_otel.consent import OptInSampler
from tbot_otel.events import StartEvent
from tbot_otel.policy import Refused, decide
from tbot_otel.registry import START
from tbot_otel.session import Outcome, Session, Start, Status, start_in_pipeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

    from tbot_otel.policy import Permitted

    _Task = tuple[Permitted, Start, LoggerProvider | None]

_tasks: "deque[_Task]" = deque()


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
    start = Start() if logger_provider is None else start_in_pipeline()
    consent = OptInSampler().should_sample()
    if not consent:
        start.settle(Outcome(Status.REFUSED, consent.reason))
        return Session(start)
    try:
        # The owner of another pipeline decides there which helpers are allowed.
        allowed = () if logger_provider is None else (event.helper or "",)
        # Decided again, because a StartEvent can be changed in spite of itself.
        decision = decide(START.name, event.attributes, allowed)
        if isinstance(decision, Refused):
            start.settle(Outcome(Status.REFUSED, decision.reason.value))
        else:
            _tasks.append((decision, start, logger_provider))
            _submit_tasks()
    except Exception as error:  # noqa: BLE001 - an error must not reach the caller
        start.fail(error)
    return Session(start)


def _submit_tasks() -> None:
    try:
        from tbot_otel import sender
    except Exception as error:
        while _tasks:
            _tasks.popleft()[1].fail(error)
        raise
    # The module is incomplete if this is a signal handler that interrupted its import. Then the
    # interrupted call submits this start, too.
    while hasattr(sender, "submit_to"):
        try:
            permitted, start, provider = _tasks.popleft()
        except IndexError:
            return
        try:
            if provider is None:
                sender.submit(permitted, start)
            else:
                sender.submit_to(provider, permitted, start)
        except Exception as error:  # noqa: BLE001 - the next start must be sent
            start.fail(error)
