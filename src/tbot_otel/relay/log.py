"""The relay's log: lines on standard error that all workers share."""

import logging
import threading
import time
import zlib
from collections import Counter
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any

from tbot_otel.errors import TbotOtelError

LOCK_TIMEOUT_SECONDS = 1.0
"""How long a worker waits for another one that logs."""
TALLY_INTERVAL_SECONDS = 60.0
"""The shortest time between two lines about the same kind of event."""

_logger = logging.getLogger("tbot_otel.relay")


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, _: str | None = None) -> str:  # noqa: N802 - its name there
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


_FORMAT = "%(asctime)s tbot-otel relay[%(process)d]: %(levelname)s: %(message)s"

# In the form of `logging.config.dictConfig`, because granian configures its own logger with it.
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"relay": {"()": _Formatter, "fmt": _FORMAT}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "relay"},
        # Other loggers repeat variables: headers, and an endpoint's query.
        "none": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["none"]},
    "loggers": {
        "tbot_otel.relay": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "asyncio": {"handlers": ["stderr"], "propagate": False},
        "_granian": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        # It logs clients' addresses. `HandshakeHandler` counts these lines.
        "_granian.workers": {"level": "DEBUG", "propagate": False},
    },
}


class ChangeLog:
    """Logs when exports begin to fail or to succeed, once for all workers.

    It is created before the workers, and handed to each of them.

    Args:
        success: The line about success.
        failure: The line about a failure, without its problem.

    Raises:
        TbotOtelError: There is no shared memory.
    """

    def __init__(self, success: str, failure: str) -> None:
        self._success = success
        self._failure = failure
        context = get_context("spawn")
        try:
            self._lock = context.Lock()
            # The checksum of the last problem; 0 for none; and 1 at first.
            self._last = context.RawValue("L", 1)
        except OSError:
            raise TbotOtelError("expected a writable /dev/shm, which the workers share") from None

    def log_change(self, problem: str | None) -> None:
        """Log the problem of an export, or success if it is None, unless it was the last one."""
        state = zlib.crc32(problem.encode()) if problem else 0
        # A worker that was killed may hold the lock forever. Then the others go on without it.
        is_locked = self._lock.acquire(timeout=LOCK_TIMEOUT_SECONDS)
        try:
            if self._last.value == state:
                return
            self._last.value = state
        finally:
            if is_locked:
                self._lock.release()
        if problem:
            _logger.warning("%s: %s", self._failure, problem)
        else:
            _logger.info(self._success)


class Tally:
    """Counts events, and logs their numbers once a minute at most. Threads may share it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, event: str) -> None:
        """Count an event."""
        with self._lock:
            self._counts[event] += 1

    def log(self) -> None:
        """Log the numbers that were not logged yet, unless their last line is too recent."""
        now = time.monotonic()
        with self._lock:
            due = {
                event: count
                for event, count in self._counts.items()
                if now - self._logged_at.get(event, float("-inf")) >= TALLY_INTERVAL_SECONDS
            }
            for event in due:
                del self._counts[event]
                self._logged_at[event] = now
        for event, count in due.items():
            _logger.warning("%s: %d", event, count)
