"""Sends starts in the background, and waits for them at exit for a limited time."""

import _thread
import atexit
import contextlib
import os
import sys
import threading
import time
from _thread import start_new_thread

from tbot_otel.consent import OptInSampler
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.forking import importing
from tbot_otel.otlp.settings import Settings, read_settings
from tbot_otel.registry import SCHEMA_URL, START
from tbot_otel.session import Outcome, Start, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry._logs import Logger, LoggerProvider

    from tbot_otel.otlp.exporter import LazyExporter
    from tbot_otel.policy import Permitted

EXIT_TIMEOUT_SECONDS = 2.0
"""The longest time that an exiting process waits for its starts."""
MAX_PENDING_STARTS = 64
"""The most starts that a process sends at once. One more fails immediately."""

# `threading._register_atexit` is private. Its callbacks run last in, first out, when the main
# thread has ended. One of them ends `concurrent.futures`. Ours is registered after it, because
# `forking` imports that module.
_register_exit_callback: "Callable[[Callable[[], None]], None] | None" = getattr(
    threading, "_register_atexit", None
)
# The SDK starts threads with `concurrent.futures` when it is imported. That works on our thread
# until the callback has run. CPython 3.12.0 to 3.12.2 start no threads at exit (gh-113964).
_SDK_MUST_BE_IMPORTED_IN_CALLER = _register_exit_callback is None or (
    (3, 12) <= sys.version_info < (3, 12, 3)
)
# CPython aborts if a sub-interpreter ends before its threads. From 3.12 on, it can be asked.
_CAN_START_THREADS = bool(getattr(_thread, "daemon_threads_allowed", lambda: True)())
_is_registered = False


class _Sender:
    """Runs a task for each start, on a thread of its own, so that none waits for another.

    A signal handler or a finalizer can call it while the thread that it interrupts is in here:
    there is no lock, and no `threading.Thread`, which has one.
    """

    def __init__(self) -> None:
        self.pending: list[Start] = []
        self._waited_seconds = 0.0
        self._has_finalizer = False

    def run(self, start: Start, task: "Callable[[], None]") -> None:
        if len(self.pending) >= MAX_PENDING_STARTS:
            problem = f"{MAX_PENDING_STARTS} starts are being sent already"
            start.settle(Outcome(Status.FAILED, problem))
            return
        if not _CAN_START_THREADS:
            start.settle(Outcome(Status.FAILED, "a sub-interpreter cannot send in the background"))
            return
        if _SDK_MUST_BE_IMPORTED_IN_CALLER:
            import opentelemetry.sdk._logs  # noqa: F401 - for later imports on the thread
        self._register_wait_at_exit()
        self.pending.append(start)
        try:
            start_new_thread(self._run, (start, task))
        except BaseException:
            self.pending.remove(start)
            raise

    def _run(self, start: Start, task: "Callable[[], None]") -> None:
        try:
            consent = OptInSampler().should_sample()
            if consent:
                task()
            else:
                start.settle(Outcome(Status.REFUSED, consent.reason))
        except BaseException as error:  # noqa: BLE001 - the interpreter would print it
            start.fail(error)
        self.pending.remove(start)

    def wait(self, seconds: float) -> None:
        """Wait for the pending starts. The waits of a process last this long together."""
        started_at = time.monotonic()
        deadline = started_at + seconds - self._waited_seconds
        try:
            for start in list(self.pending):
                start.wait(max(0.0, deadline - time.monotonic()))
            self._waited_seconds += time.monotonic() - started_at
        except BaseException:  # noqa: BLE001 - of a signal handler, such as KeyboardInterrupt
            # The interpreter would print it, and skip what else it does at exit.
            self._waited_seconds = seconds

    def _register_wait_at_exit(self) -> None:
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
        # A process of billiard runs these alone at exit. (Celery's workers call os._exit.)
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None and not self._has_finalizer:
            self._has_finalizer = True
            multiprocessing.Finalize(None, _wait_at_exit, exitpriority=0)


_sender = _Sender()


def _reset_after_fork() -> None:
    # A forked child has neither the parent's threads nor its starts.
    global _sender
    _sender = _Sender()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _wait_at_exit() -> None:
    _sender.wait(EXIT_TIMEOUT_SECONDS)
    if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) and not hasattr(sys, "ps1"):
        # If Ctrl-C interrupted the program, CPython exits with SIGINT only if exec() saw it last.
        # Our threads' imports call exec, too, so raise it again.
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - constant


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


def _exporter_of_now() -> "Callable[[], LazyExporter]":
    result: Settings | ExporterConfigurationError
    try:
        result = read_settings()
    except ExporterConfigurationError as error:
        result = error

    def get_settings() -> Settings:
        if isinstance(result, ExporterConfigurationError):
            raise result
        return result

    def build() -> "LazyExporter":
        from tbot_otel.otlp.exporter import LazyExporter

        return LazyExporter(get_settings)

    return build


def pending_starts() -> list[Start]:
    """Return the starts that are being sent."""
    return list(_sender.pending)


def submit(
    permitted: "Permitted",
    start: Start,
    build_exporter: "Callable[[], LazyExporter] | None" = None,
) -> None:
    """Send a start in the background.

    Args:
        permitted: What policy permitted of it.
        start: The start, which gets the outcome.
        build_exporter: Builds the exporter that sends it, in the background. By default, it has the
            settings of now: programs change the variables later, for exporters of their own.
    """
    build = build_exporter or _exporter_of_now()

    def send() -> None:
        with importing():
            from tbot_otel.otlp.quiet import local_logs
            from tbot_otel.pipeline.record import PermittedRecord

            exporter = build()
        with local_logs():
            start.settle(exporter.send([PermittedRecord(permitted, start)]))
        exporter.shutdown()

    _sender.run(start, send)


def submit_to(provider: "LoggerProvider", permitted: "Permitted", start: Start) -> None:
    """Emit a start into a pipeline, and flush that, in the background.

    Args:
        provider: The pipeline.
        permitted: What policy permitted of it.
        start: The start, which gets the outcome.
    """

    def emit() -> None:
        with importing():
            from tbot_otel.pipeline.record import SCOPE_NAME, SCOPE_VERSION, EventLogRecord
        logger = provider.get_logger(SCOPE_NAME, SCOPE_VERSION, SCHEMA_URL)
        if not _is_enabled(logger):
            problem = "no processor of the logger_provider takes it"
            start.settle(Outcome(Status.FAILED, problem))
            return
        logger.emit(EventLogRecord(permitted, start))
        # After a flush, a TbotLogExporter in that pipeline has set the outcome.
        if flush := getattr(provider, "force_flush", None):
            # The provider has the record, even if its flush fails.
            with contextlib.suppress(Exception):
                flush()
        start.settle(Outcome(Status.HANDED_OVER, "the logger_provider has it"))

    _sender.run(start, emit)
