"""record_start: one start, one session, one record, and never in the caller's way."""

import atexit
import os
import threading
import time
from collections import deque

from tbot_otel import otlp
from tbot_otel.consent import OptInSampler
from tbot_otel.events import StartEvent
from tbot_otel.session import Outcome, Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

    from tbot_otel.exporter import TbotLogExporter
    from tbot_otel.record import EventLogRecord

EXIT_WAIT = 2.0
"""The longest wait of an exiting process for a record under way, in seconds."""

MOST_UNDER_WAY = 64
"""The records that a process can have under way; one more fails at once."""


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
            `TbotLogExporter` sends it under the anonymous one.

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
        from tbot_otel.record import of_start

        _sender.submit(of_start(event, session), logger_provider)
    except Exception as error:  # noqa: BLE001 - nothing of ours may stop the caller
        session.settle(_failed(error))
    return session


class _Sender:
    """Sends the records of a process one after another, on a daemon thread that ends with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: deque[tuple[EventLogRecord, LoggerProvider | None]] = deque()
        self._running = False

    def submit(self, record: "EventLogRecord", provider: "LoggerProvider | None") -> None:
        with self._lock:
            if len(self._under_way) == MOST_UNDER_WAY:
                too_many = f"{MOST_UNDER_WAY} records are under way already"
                record.session.settle(Outcome(Status.FAILED, too_many))
                return
            if not self._running:
                threading.Thread(target=self._run, name="tbot_otel", daemon=True).start()
                self._running = True
                # Handlers run last in, first out: the SDK's must come after ours.
                atexit.unregister(_wait_at_exit)
                atexit.register(_wait_at_exit)
            self._under_way.append((record, provider))

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._lock:
            records = [record for record, _ in self._under_way]
        for record in records:
            record.session.flush(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        exporter: TbotLogExporter | None = None
        while True:
            with self._lock:
                if not self._under_way:
                    self._running = False
                    break
                record, provider = self._under_way[0]
            try:
                if provider is not None:
                    _emit(record, provider)
                else:
                    from tbot_otel import exporter as plugin
                    from tbot_otel.record import readable

                    exporter = exporter or plugin.TbotLogExporter()
                    exporter.export([readable(record)])
            except Exception as error:  # noqa: BLE001 - the next record goes on
                record.session.settle(_failed(error))
            with self._lock:
                self._under_way.popleft()
        if exporter is not None:
            exporter.shutdown()


def _emit(record: "EventLogRecord", provider: "LoggerProvider") -> None:
    from tbot_otel import __version__
    from tbot_otel.record import SCOPE_NAME

    provider.get_logger(SCOPE_NAME, __version__).emit(record)
    # An exporter of ours in that pipeline says more than this, now or later.
    if flush := getattr(provider, "force_flush", None):
        flush()
    record.session.settle(Outcome(Status.HANDED_OVER, "the logger_provider took it"))


def _failed(error: Exception) -> Outcome:
    return Outcome(Status.FAILED, f"it could not be sent ({type(error).__name__})")


_sender = _Sender()


def _start_afresh() -> None:
    # A forked child has neither the thread nor a share in its parent's records.
    global _sender
    _sender = _Sender()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def _wait_at_exit() -> None:
    timeout = otlp.timeout()
    _sender.wait(EXIT_WAIT if timeout is None else min(EXIT_WAIT, timeout))
