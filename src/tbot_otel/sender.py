"""The background thread that sends starts, and the bounded wait for it at exit."""

import atexit
import os
import threading
import time
from collections import deque

from tbot_otel.forking import importing
from tbot_otel.otlp import environment
from tbot_otel.session import Outcome, Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

    from tbot_otel.events import StartEvent
    from tbot_otel.exporter import TbotLogExporter
    from tbot_otel.record import EventLogRecord

EXIT_TIMEOUT_SECONDS = 2.0
"""The longest time that an exiting process waits for its starts."""
MAX_PENDING_STARTS = 64
"""The most starts that a process sends at once. One more fails immediately."""


class _Sender:
    """Sends a process's starts one after another, on a daemon thread that ends after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[tuple[StartEvent, Session, LoggerProvider | None]] = deque()
        self._running = False

    def submit(
        self, event: "StartEvent", session: Session, provider: "LoggerProvider | None"
    ) -> None:
        with self._lock:
            if len(self._pending) == MAX_PENDING_STARTS:
                problem = f"{MAX_PENDING_STARTS} starts are being sent already"
                session.settle(Outcome(Status.FAILED, problem))
                return
            if not self._running:
                threading.Thread(target=self._run, name="tbot_otel", daemon=True).start()
                self._running = True
                # Exit handlers run last in, first out, and the SDK's must run after this one.
                atexit.unregister(_wait_at_exit)
                atexit.register(_wait_at_exit)
            self._pending.append((event, session, provider))

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._lock:
            sessions = [session for _, session, _ in self._pending]
        for session in sessions:
            session.flush(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        # Let the caller continue before this thread's imports take the interpreter.
        time.sleep(0.0002)
        exporter: TbotLogExporter | None = None
        while True:
            with self._lock:
                if not self._pending:
                    self._running = False
                    break
                event, session, provider = self._pending[0]
            try:
                with importing():
                    from tbot_otel import exporter as plugin
                    from tbot_otel import record as records
                record = records.start_record(event, session)
                if provider is None:
                    exporter = exporter or plugin.TbotLogExporter()
                    exporter.export([records.to_readable(record)])
                else:
                    _emit(record, provider)
            except BaseException as error:  # noqa: BLE001 - the next start must be sent
                session.fail(error)
            with self._lock:
                self._pending.popleft()
        if exporter is not None:
            exporter.shutdown()


def _emit(record: "EventLogRecord", provider: "LoggerProvider") -> None:
    from tbot_otel.record import SCOPE_NAME, SCOPE_VERSION

    provider.get_logger(SCOPE_NAME, SCOPE_VERSION).emit(record)
    # After a flush, a TbotLogExporter in that pipeline has set the outcome.
    if flush := getattr(provider, "force_flush", None):
        flush()
    record.session.settle(Outcome(Status.HANDED_OVER, "the logger_provider has it"))


_sender = _Sender()


def submit(event: "StartEvent", session: Session, provider: "LoggerProvider | None") -> None:
    """Send a start in the background.

    Args:
        event: The start.
        session: Its session, which gets the outcome.
        provider: The pipeline to emit it into; None for the private one.
    """
    session.track()
    _sender.submit(event, session, provider)


def _reset_after_fork() -> None:
    # A forked child has neither the parent's thread nor its starts.
    global _sender
    _sender = _Sender()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _wait_at_exit() -> None:
    timeout = environment.timeout_seconds()
    _sender.wait(EXIT_TIMEOUT_SECONDS if timeout is None else min(EXIT_TIMEOUT_SECONDS, timeout))
