"""Hides what the libraries behind an export log: a line of theirs can repeat a header or a URL.

Keeps our own lines out of the logs that an application exports.
"""

import contextlib
import logging
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARIES = ("grpc", "opentelemetry", "requests", "urllib3")
# Their handlers send what is logged elsewhere.
_EXPORTING_LIBRARIES = ("logfire", "opentelemetry", "sentry_sdk")


class _ThreadFilter(logging.Filter):
    """Hides lines of threads inside `hidden_logs`."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.local()

    def filter(self, _: logging.LogRecord) -> bool:
        return not getattr(self.thread, "is_hidden", False)


_filter = _ThreadFilter()


@contextlib.contextmanager
def hidden_logs() -> "Iterator[None]":
    """Hide what these libraries log on this thread in this block."""
    # A filter applies to one logger, and importing a library creates more of them.
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger):
            logger.addFilter(_filter)
    _filter.thread.is_hidden = True
    try:
        yield
    finally:
        _filter.thread.is_hidden = False


class _LocalHandlers(logging.Filter):
    """Gives lines of threads inside `local_logs` to the handlers that export nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(self.thread, "is_inside", False):
            return True
        logger: logging.Logger | None = logging.getLogger(record.name)
        handlers: list[logging.Handler] = []
        while logger is not None:
            handlers += filter(_is_local, logger.handlers)
            logger = logger.parent if logger.propagate else None
        for handler in handlers or filter(None, [logging.lastResort]):
            if record.levelno >= handler.level:
                handler.handle(record)
        return False


def _is_local(handler: logging.Handler) -> bool:
    packages = {base.__module__.partition(".")[0] for base in type(handler).__mro__}
    return packages.isdisjoint(_EXPORTING_LIBRARIES)


_local_handlers = _LocalHandlers()


@contextlib.contextmanager
def local_logs() -> "Iterator[None]":
    """Keep what we log on this thread in this block from handlers that export it.

    An agent that replaces `logging.Logger.callHandlers`, as Sentry's does, does not see it either.
    """
    for name in ("tbot_otel", "tbot_otel.export"):
        logging.getLogger(name).addFilter(_local_handlers)
    _local_handlers.thread.is_inside = True
    try:
        yield
    finally:
        _local_handlers.thread.is_inside = False


def silence_grpc() -> None:
    """Keep gRPC's C core from writing to standard error. Call this in a process of ours alone."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
