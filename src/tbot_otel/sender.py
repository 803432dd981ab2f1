"""The background thread that sends starts, and the bounded wait for it at exit."""

import atexit
import contextlib
import os
import sys
import threading
import time
from collections import deque

from tbot_otel.consent import OptInSampler
from tbot_otel.forking import importing
from tbot_otel.otlp import environment
from tbot_otel.registry import SCHEMA_URL, START
from tbot_otel.session import Outcome, Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry._logs import Logger, LoggerProvider

    from tbot_otel.events import StartEvent
    from tbot_otel.pipeline.exporter import TbotLogExporter
    from tbot_otel.pipeline.record import EventLogRecord

EXIT_TIMEOUT_SECONDS = 2.0
"""The longest time that an exiting process waits for its starts."""
MAX_PENDING_STARTS = 64
"""The most starts that a process sends at once. One more fails immediately."""

# Private. These callbacks run last in, first out, when the main thread has ended. One of them ends
# `concurrent.futures`. Ours is registered after it, because `forking` imports that module.
_register_exit_callback: "Callable[[Callable[[], None]], None] | None" = getattr(
    threading, "_register_atexit", None
)
# The SDK starts threads with `concurrent.futures` when it is imported. That works on our thread
# until the callback has run. CPython 3.12.0 to 3.12.2 start no threads at exit (gh-113964), and no
# later 3.12 is tested.
_SDK_MUST_BE_IMPORTED_IN_CALLER = _register_exit_callback is None or sys.version_info[:2] == (3, 12)
_is_registered = False


class _Sender:
    """Sends a process's starts one after another, on a daemon thread that ends after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[tuple[StartEvent, Session, LoggerProvider | None]] = deque()
        self._running = False
        self._waited_seconds = 0.0

    def submit(
        self, event: "StartEvent", session: Session, provider: "LoggerProvider | None"
    ) -> None:
        with self._lock:
            if len(self._pending) == MAX_PENDING_STARTS:
                problem = f"{MAX_PENDING_STARTS} starts are being sent already"
                session.settle(Outcome(Status.FAILED, problem))
                return
            if not self._running:
                _register_wait_at_exit()
                threading.Thread(target=self._run, name="tbot_otel", daemon=True).start()
                self._running = True
            self._pending.append((event, session, provider))

    def pending_sessions(self) -> list[Session]:
        with self._lock:
            return [session for _, session, _ in self._pending]

    def wait(self, seconds: float) -> None:
        """Wait for the pending starts. The waits of a process last this long together."""
        started_at = time.monotonic()
        deadline = started_at + seconds - self._waited_seconds
        try:
            for session in self.pending_sessions():
                session.flush(max(0.0, deadline - time.monotonic()))
            self._waited_seconds += time.monotonic() - started_at
        except BaseException:  # noqa: BLE001 - of a signal handler, such as KeyboardInterrupt
            # The interpreter would print it, and skip what else it does at exit.
            self._waited_seconds = seconds

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
                    from tbot_otel.pipeline import exporter as plugin
                    from tbot_otel.pipeline import record as records
                record = records.start_record(event, session)
                if provider is None:
                    exporter = exporter or (_build_exporter or plugin.TbotLogExporter)()
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
    from tbot_otel.pipeline.record import SCOPE_NAME, SCOPE_VERSION

    consent = OptInSampler().should_sample()
    if not consent:
        record.session.settle(Outcome(Status.REFUSED, consent.reason))
        return
    logger = provider.get_logger(SCOPE_NAME, SCOPE_VERSION, SCHEMA_URL)
    if not _is_enabled(logger):
        problem = "no processor of the logger_provider takes it"
        record.session.settle(Outcome(Status.FAILED, problem))
        return
    logger.emit(record)
    # After a flush, a TbotLogExporter in that pipeline has set the outcome.
    if flush := getattr(provider, "force_flush", None):
        # The provider has the record, even if its flush fails.
        with contextlib.suppress(Exception):
            flush()
    record.session.settle(Outcome(Status.HANDED_OVER, "the logger_provider has it"))


def _is_enabled(logger: "Logger") -> bool:
    from opentelemetry._logs import NoOpLogger, SeverityNumber

    # Before SDK 1.45, the API tells only whether the logger does nothing. The logger of a program
    # that has not set a provider has a NoOpLogger in a private attribute.
    if isinstance(getattr(logger, "_logger", logger), NoOpLogger):
        return False
    enabled = getattr(logger, "enabled", None)
    return enabled is None or bool(
        enabled(severity_number=SeverityNumber.INFO, event_name=START.name)
    )


_sender = _Sender()
_build_exporter: "Callable[[], TbotLogExporter] | None" = None


def use_exporter(build: "Callable[[], TbotLogExporter]") -> None:
    """Set how the private pipeline of this process builds its exporter."""
    global _build_exporter
    _build_exporter = build


def submit(event: "StartEvent", session: Session, provider: "LoggerProvider | None" = None) -> None:
    """Send a start in the background.

    Args:
        event: The start.
        session: Its session, which gets the outcome.
        provider: The pipeline to emit it into; None for the private one.
    """
    if _SDK_MUST_BE_IMPORTED_IN_CALLER:
        import opentelemetry.sdk._logs  # noqa: F401 - for later imports on the thread
    session.track()
    _sender.submit(event, session, provider)


def pending_sessions() -> list[Session]:
    """Return the sessions of the starts that are being sent."""
    return _sender.pending_sessions()


def _reset_after_fork() -> None:
    # A forked child has neither the parent's thread nor its starts.
    global _sender
    _sender = _Sender()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _register_wait_at_exit() -> None:
    global _is_registered
    if _register_exit_callback and not _is_registered:
        # While the interpreter exits, it raises RuntimeError.
        with contextlib.suppress(RuntimeError):
            _register_exit_callback(_wait_at_exit)
            _is_registered = True
    # For starts that other threads record after that callback. Exit handlers run last in, first
    # out, and the SDK's must run after this one.
    atexit.unregister(_wait_at_exit)
    atexit.register(_wait_at_exit)


def _wait_at_exit() -> None:
    timeout = environment.timeout_seconds()
    _sender.wait(EXIT_TIMEOUT_SECONDS if timeout is None else min(EXIT_TIMEOUT_SECONDS, timeout))
    if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) and not hasattr(sys, "ps1"):
        # CPython ends with SIGINT if that interrupted the last code that was executed from text.
        # The imports on our thread execute such code too, so interrupt it once more.
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - constant
