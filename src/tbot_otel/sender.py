"""The sender: a start leaves on a thread of its own, and an exit waits for it for a moment."""

import atexit
import os
import threading
import time
from collections import deque

from tbot_otel.forking import importing
from tbot_otel.session import Outcome, Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

    from tbot_otel.events import StartEvent
    from tbot_otel.exporter import TbotLogExporter
    from tbot_otel.record import EventLogRecord

EXIT_WAIT = 2.0
"""The longest wait of an exiting process for a start under way, in seconds."""
MOST_UNDER_WAY = 64
"""The starts that a process can have under way; one more fails at once."""


class _Sender:
    """Sends the starts of a process one after another, on a daemon thread that ends with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: deque[tuple[StartEvent, Session, LoggerProvider | None]] = deque()
        self._running = False

    def submit(
        self, event: "StartEvent", session: Session, provider: "LoggerProvider | None"
    ) -> None:
        with self._lock:
            if len(self._under_way) == MOST_UNDER_WAY:
                too_many = f"{MOST_UNDER_WAY} starts are under way already"
                session.settle(Outcome(Status.FAILED, too_many))
                return
            if not self._running:
                threading.Thread(target=self._run, name="tbot_otel", daemon=True).start()
                self._running = True
                # Handlers run last in, first out: the SDK's must come after ours.
                atexit.unregister(_wait_at_exit)
                atexit.register(_wait_at_exit)
            self._under_way.append((event, session, provider))

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._lock:
            sessions = [session for _, session, _ in self._under_way]
        for session in sessions:
            session.flush(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        # The caller goes on first: else it would wait for this thread's imports to let it.
        time.sleep(0.0002)
        exporter: TbotLogExporter | None = None
        while True:
            with self._lock:
                if not self._under_way:
                    self._running = False
                    break
                event, session, provider = self._under_way[0]
            try:
                with importing():
                    from tbot_otel import exporter as plugin
                    from tbot_otel import record as records
                record = records.of_start(event, session)
                if provider is None:
                    exporter = exporter or plugin.TbotLogExporter()
                    exporter.export([records.readable(record)])
                else:
                    _emit(record, provider)
            except BaseException as error:  # noqa: BLE001 - the next start goes on
                session.fail(error)
            with self._lock:
                self._under_way.popleft()
        if exporter is not None:
            exporter.shutdown()


def _emit(record: "EventLogRecord", provider: "LoggerProvider") -> None:
    from tbot_otel.record import SCOPE_NAME, SCOPE_VERSION

    provider.get_logger(SCOPE_NAME, SCOPE_VERSION).emit(record)
    # Flushed, so that an exporter of ours in that pipeline can say more than this.
    if flush := getattr(provider, "force_flush", None):
        flush()
    record.session.settle(Outcome(Status.HANDED_OVER, "the logger_provider took it"))


_sender = _Sender()


def submit(event: "StartEvent", session: Session, provider: "LoggerProvider | None") -> None:
    """Send a start in the background.

    Args:
        event: The start.
        session: Its session, which is told what becomes of it.
        provider: The pipeline to emit it into; the private one unless given.
    """
    session.track()
    _sender.submit(event, session, provider)


def _start_afresh() -> None:
    # A forked child has neither the thread nor a share in its parent's starts.
    global _sender
    _sender = _Sender()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def _wait_at_exit() -> None:
    from tbot_otel import destination

    timeout = destination.timeout()
    _sender.wait(EXIT_WAIT if timeout is None else min(EXIT_WAIT, timeout))
