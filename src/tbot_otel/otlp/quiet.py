"""Hides what the libraries behind an export log: a line of theirs can repeat a header or a URL.

Keeps our own lines out of the logs that an application exports.
"""

import contextlib
import logging
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

_LIBRARIES = ("grpc", "opentelemetry", "requests", "urllib3")
# Libraries whose logging handlers export.
_EXPORTING_LIBRARIES = ("logfire", "opentelemetry", "sentry_sdk")


class _BlockFilter(logging.Filter):
    """Handles the lines of threads that are inside a block."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()

    @contextlib.contextmanager
    def block(self, loggers: "Iterable[logging.Logger]") -> "Iterator[None]":
        """Handle what these loggers get on this thread in this block."""
        for logger in loggers:
            logger.addFilter(self)
        self._thread.is_inside = True
        try:
            yield
        finally:
            self._thread.is_inside = False

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(self._thread, "is_inside", False):
            return True
        self.handle(record)
        return False

    def handle(self, record: logging.LogRecord) -> None:
        """Hide a line."""


class _LocalHandlers(_BlockFilter):
    """Gives lines to the handlers that export nothing."""

    def handle(self, record: logging.LogRecord) -> None:
        logger: logging.Logger | None = logging.getLogger(record.name)
        handlers: list[logging.Handler] = []
        while logger is not None:
            handlers += filter(_is_local, logger.handlers)
            logger = logger.parent if logger.propagate else None
        for handler in handlers or filter(None, [logging.lastResort]):
            if record.levelno >= handler.level:
                handler.handle(record)


def _is_local(handler: logging.Handler) -> bool:
    packages = {base.__module__.partition(".")[0] for base in type(handler).__mro__}
    return packages.isdisjoint(_EXPORTING_LIBRARIES)


_hidden = _BlockFilter()
_local_handlers = _LocalHandlers()


def hidden_logs() -> "AbstractContextManager[None]":
    """Hide what these libraries log on this thread in this block."""
    # A filter applies to one logger, and importing a library creates more of them.
    return _hidden.block(
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if name.partition(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger)
    )


def local_logs() -> "AbstractContextManager[None]":
    """Keep our lines from handlers that export them, on this thread in this block.

    An agent that replaces `logging.Logger.callHandlers`, as Sentry's does, gets none either.
    """
    return _local_handlers.block(map(logging.getLogger, ("tbot_otel", "tbot_otel.export")))


def silence_grpc() -> None:
    """Keep gRPC's C core from writing to standard error. Call this in a process of ours alone."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
