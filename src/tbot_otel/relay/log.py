"""The relay's log: lines on standard error that all workers share."""

import logging
import zlib
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any

from tbot_otel.errors import TbotOtelError

LOCK_TIMEOUT_SECONDS = 1.0
"""How long a worker waits for another one that logs."""

_logger = logging.getLogger("tbot_otel.relay")


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, _: str | None = None) -> str:  # noqa: N802 - its name there
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


_FORMAT = "%(asctime)s tbot-otel relay[%(process)d]: %(message)s"

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
    },
}


class ChangeLog:
    """Logs when the Collector starts or stops accepting exports, once for all workers.

    It is created before the workers, and handed to each of them.

    Raises:
        TbotOtelError: There is no shared memory.
    """

    def __init__(self) -> None:
        context = get_context("spawn")
        try:
            self._lock = context.Lock()
            # The checksum of the last problem; 0 for none; and 1 at first.
            self._last = context.RawValue("L", 1)
        except OSError:
            raise TbotOtelError("expected a writable /dev/shm, which the workers share") from None

    def report(self, problem: str | None) -> None:
        """Log why the Collector does not accept exports, or that it does if `problem` is None."""
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
            _logger.warning("the Collector does not accept exports: %s", problem)
        else:
            _logger.info("the Collector accepts exports")
